"""Which models the CPU rehearsal can train."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.catalogue.recipe import Recipe

# Recipes that have trained on the CPU, shrunk.
RAN = (
    "llama32_1b", "llama3_8b", "llama3_70b", "llama31_405b", "mixtral_8x7b", "qwen3_1p7b", "qwen3_30b_a3b",
    "qwen25_500m", "mistral_7b", "nemotron3_4b", "starcoder2_3b", "phi3_mini_4k_instruct", "gemma2_2b",
)  # fmt: skip
_KINDS = {
    "mamba": "Mamba layers need CUDA kernels",
    "hyena": "Hyena layers need CUDA kernels",
    "bert": "NeMo builds BERT only where Transformer Engine is installed",
    "t5": "NeMo's T5 does not run without Transformer Engine",
}


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Whether a model trains on a machine without a GPU.

    Attributes:
        status: "runs" (this recipe has trained, shrunk), "expected" (one that differs in sizes only has),
            "untested", or "unsupported".
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
    if recipe.name in RAN:
        return Rehearsal(status="runs", reason="this recipe has trained on the CPU, shrunk")
    return Rehearsal(status="untested", reason="no model of its class has been tried")
