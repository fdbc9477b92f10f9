"""Which activations a job recomputes: what it asks for, else what the recipe sets."""

from __future__ import annotations

from nemolaunch.catalogue import Recipe
from nemolaunch.job import Job

# Megatron's choices, and its default for selective recompute (`TransformerConfig.recompute_modules`)
MODULES = ("core_attn", "layernorm", "mla_up_proj", "mlp", "moe", "moe_act", "shared_experts")
DEFAULT_MODULES = ("core_attn",)
# They release their output, which Megatron only implements with Transformer Engine (`CheckpointWithoutOutputFunction`)
NEED_TRANSFORMER_ENGINE = frozenset({"layernorm", "mla_up_proj", "moe_act"})


def granularity_of(job: Job, recipe: Recipe) -> str | None:
    """Return the granularity in effect. Activation offload clears the recipe's, which it cannot be combined with."""
    given = job.memory.recompute_granularity
    return given if given or job.memory.cpu_offloading else recipe.recompute_granularity


def selected_modules(job: Job, recipe: Recipe) -> tuple[str, ...]:
    """Return the modules recomputed by `selective`; empty if it is not in effect."""
    if granularity_of(job, recipe) != "selective":
        return ()
    return job.memory.recompute_modules or recipe.recompute_modules or DEFAULT_MODULES
