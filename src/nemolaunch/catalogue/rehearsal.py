"""Models that can be rehearsed on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.recipe_table import Recipe, table

# Recipes that have been trained on the CPU in shrunk form: at least one of every model class that can.
TRAINED = (
    "baichuan2_7b", "bert_110m", "chatglm3_6b", "deepseek_v2_lite", "deepseek_v3", "gemma_2b", "gemma2_2b",
    "gemma2_9b", "gemma3_1b", "gpt3_175b", "llama2_7b", "llama31_405b", "llama31_nemotron_70b",
    "llama31_nemotron_nano_8b", "llama32_1b", "llama3_70b", "llama3_8b", "llama4_e128", "llama4_e16", "mamba2_130m",
    "mistral_7b", "mistral_nemo_12b", "mixtral_8x22b", "mixtral_8x7b", "nemotron3_4b", "nemotron4_15b",
    "nemotronh_8b", "phi3_mini_4k_instruct", "qwen25_500m", "qwen2_7b", "qwen3_1p7b", "qwen3_235b_a22b",
    "qwen3_30b_a3b", "starcoder2_15b", "starcoder2_3b", "starcoder_15b",
)  # fmt: skip
TRAINED_WITH_BRIDGE = (
    "ernie45_21b_a3b", "gemma4_26b_a4b", "gemma4_31b", "gemma4_e2b", "glm45", "glm45_air", "glm47_flash", "gpt_oss_20b",
    "hy3_295b_a21b", "k_exaone_236b_a23b", "kimi_k2", "ling_mini_2", "mimo_7b", "minimax_m2", "moonlight_16b",
    "nemotron_3_nano_30b_a3b", "nemotron_3_nano_4b", "nemotron_3_super_120b_a12b", "olmoe_7b", "qwen35_35b_a3b",
    "qwen35_4b", "qwen3_next_80b_a3b", "sarvam_105b", "sarvam_30b",
)  # fmt: skip
_KINDS = {
    "hyena": "Hyena layers need CUDA kernels",
    "t5": "NeMo's T5 does not run without Transformer Engine",
}


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """The answer to whether a model trains on a machine without a GPU.

    Attributes:
        status: "runs" (this recipe has been trained in shrunk form), "expected" (another recipe of its model class
            has), "untested" (none has) or "unsupported".
        reason: a short explanation.
    """

    status: str
    reason: str


def cpu_rehearsal(recipe: Recipe, architecture: Architecture | None = None) -> Rehearsal:
    """Return whether a recipe, optionally with another architecture, trains on the CPU."""
    shape = architecture or recipe.architecture
    if recipe.model_class == "Exaone4ForCausalLM":
        return Rehearsal(status="unsupported", reason="its norms of queries and keys need Transformer Engine")
    if shape.kind in _KINDS:
        return Rehearsal(status="unsupported", reason=_KINDS[shape.kind])
    if recipe.name in TRAINED + TRAINED_WITH_BRIDGE:
        return Rehearsal(status="runs", reason="this recipe has been trained on the CPU in shrunk form")
    relatives = [name for name in TRAINED if table().recipes[name].model_class == recipe.model_class]
    if relatives:
        return Rehearsal(
            status="expected",
            reason=f"{relatives[0]}, which differs only in size, has been trained on the CPU",
        )
    return Rehearsal(status="untested", reason="no model of its class has been tried")
