"""Which models the CPU rehearsal can train."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.recipe_table import Recipe, table

# Recipes that have trained on the CPU, shrunk: at least one of every model class that can.
RAN = (
    "baichuan2_7b", "bert_110m", "chatglm3_6b", "gemma_2b", "gemma2_2b", "gemma2_9b", "gpt3_175b", "llama2_7b",
    "llama31_405b", "llama31_nemotron_70b", "llama31_nemotron_nano_8b", "llama32_1b", "llama3_70b",
    "llama3_8b", "llama4_e128", "llama4_e16", "mistral_7b", "mistral_nemo_12b", "mixtral_8x22b",
    "mixtral_8x7b", "nemotron3_4b", "nemotron4_15b", "phi3_mini_4k_instruct", "qwen25_500m", "qwen2_7b",
    "qwen3_1p7b", "qwen3_235b_a22b", "qwen3_30b_a3b", "starcoder2_15b", "starcoder2_3b", "starcoder_15b",
)  # fmt: skip
_KINDS = {
    "mamba": "Mamba layers need CUDA kernels",
    "hyena": "Hyena layers need CUDA kernels",
    "t5": "NeMo's T5 does not run without Transformer Engine",
}
_CLASSES = {
    "Gemma3Model": "NeMo's Gemma 3 attention refuses an argument that Megatron 0.15 gives it, on GPUs too",
}


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Whether a model trains on a machine without a GPU.

    Attributes:
        status: "runs" (this recipe has trained, shrunk), "expected" (another of its model class has),
            "untested" (none has) or "unsupported".
        reason: why, in a few words.
    """

    status: str
    reason: str


def cpu_rehearsal(recipe: Recipe, architecture: Architecture | None = None) -> Rehearsal:
    """Whether a recipe, with the architecture given instead of its own, trains on the CPU."""
    shape = architecture or recipe.architecture
    if shape.kind in _KINDS:
        return Rehearsal(status="unsupported", reason=_KINDS[shape.kind])
    if shape.multi_latent_attention:
        return Rehearsal(status="unsupported", reason="multi-latent attention has no CPU layers")
    if recipe.model_class in _CLASSES:
        return Rehearsal(status="unsupported", reason=_CLASSES[recipe.model_class])
    if recipe.name in RAN:
        return Rehearsal(status="runs", reason="this recipe has trained on the CPU, shrunk")
    relatives = [name for name in RAN if table().recipes[name].model_class == recipe.model_class]
    if relatives:
        return Rehearsal(status="expected", reason=f"{relatives[0]} has trained, which differs in sizes")
    return Rehearsal(status="untested", reason="no model of its class has been tried")
