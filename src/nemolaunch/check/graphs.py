"""CUDA graphs: which layers can be captured, and what capture cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.environment import variables, without_variables
from nemolaunch.check.offload import DETAILS
from nemolaunch.check.support import error, fix, flag, without
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

GRAPHS = "cuda_graphs"
ALLOCATORS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
MOVING = "expandable_segments:True"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check model, recompute, offload and the allocator's settings."""
    if not resolved.job.speed.cuda_graphs:
        return
    reason = _unsupported(resolved)
    if reason:
        yield error(
            "cuda-graphs-unsupported",
            f"{flag(GRAPHS)} is not possible: {resolved.model.name} {reason}",
            fix(cuda_graphs=False),
        )
    memory = resolved.job.memory
    if memory.cpu_offloading:
        yield error(
            "cuda-graphs-with-offload",
            f"{flag(GRAPHS)} cannot be combined with {flag('cpu_offloading')}",
            fix(cuda_graphs=False),
            without(resolved, "cpu_offloading", *DETAILS),
        )
    yield from _recompute(resolved)
    found = variables(resolved)
    odd = [name for name in ALLOCATORS if MOVING in found.get(name, "")]
    if odd:
        yield error(
            "cuda-graphs-allocator",
            f"{flag(GRAPHS)} cannot be combined with {' and '.join(f'{name}={found[name]}' for name in odd)}",
            fix(cuda_graphs=False),
            *without_variables(resolved, odd),
        )


def _recompute(resolved: Resolved) -> Iterator[Finding]:
    memory, preset = resolved.job.memory, resolved.model.recipe.recompute_granularity
    given = memory.recompute_granularity
    if given is None and (preset is None or memory.cpu_offloading):
        return
    names = ("recompute_granularity", "recompute_method", "recompute_num_layers", "recompute_modules")
    what = "recompute" if given else f"the recompute that the recipe {resolved.model.recipe.name} sets"
    yield error(
        "cuda-graphs-with-recompute",
        f"{flag(GRAPHS)} cannot be combined with {what}",
        fix(cuda_graphs=False),
        *((without(resolved, *names),) if given and preset is None else ()),
    )


def _unsupported(resolved: Resolved) -> str | None:
    """Return why not all layers can be captured; None if they can."""
    a = resolved.model.architecture
    if a.num_moe_experts:
        return "has experts, whose tokens are counted on the host (MoEAlltoAllTokenDispatcher)"
    if a.kind == "hyena":
        return "has layers that cannot be captured (HyenaLayer), so it would train without graphs"
    if a.kind == "t5":
        return "passes its decoder a pair of masks, which graphs do not support"
    if resolved.model.recipe.model_class in ("Gemma3Model", "Gemma4ForCausalLM"):
        return "passes its layers pairs of rotary embeddings, which graphs do not support"
    return None
