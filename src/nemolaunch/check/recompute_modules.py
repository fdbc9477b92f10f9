"""Modules that selective recompute applies to: their names, and whether the model has them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, shown, warning, without
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.attention import has_attention
from nemolaunch.resolve.recompute import MODULES, granularity_of

NAME = "recompute_modules"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the modules that a job names."""
    asked = resolved.asked  # a rehearsal leaves some modules out
    given = asked.memory.recompute_modules
    if not given:
        return
    granularity = granularity_of(asked, resolved.model.recipe)
    if granularity != "selective":
        others = without(resolved, "recompute_method", "recompute_num_layers").changes
        selective = fix(recompute_granularity="selective", **others)
        yield error(
            "recompute-modules-not-selective",
            f"{shown(NAME, ' '.join(given))} has no effect "
            + (
                f"with {granularity} recompute" if granularity else f"without {flag('recompute_granularity')}"
            ),
            *(() if asked.memory.cpu_offloading else (selective,)),
            fix(recompute_modules=()),
        )
    refused = {module: reason for module in given if (reason := _impossible(resolved, module))}
    if refused:
        yield error(
            "recompute-modules",
            f"{flag(NAME)}: {'; '.join(refused.values())}",
            _without(given, list(refused)),
        )
    unused = {m: reason for m in given if m not in refused and (reason := _missing(resolved, m))}
    if unused:
        reasons = " and ".join(dict.fromkeys(unused.values()))
        yield warning(
            "recompute-modules-not-used",
            f"{shown(NAME, ' '.join(unused))} has no effect: {resolved.model.name} {reasons}",
            _without(given, list(unused)),
        )


def _without(given: tuple[str, ...], dropped: list[str]) -> Fix:
    """Return the fix that drops modules, or replaces those that are misspelt."""
    new = [m for word in given for m in (_meant(word) if word in dropped else [word]) if m not in dropped]
    return fix(recompute_modules=tuple(dict.fromkeys(new)))


def _meant(word: str) -> list[str]:
    return [] if word in MODULES else difflib.get_close_matches(word, MODULES, n=1)


def _impossible(resolved: Resolved, module: str) -> str | None:
    """Return why Megatron refuses a module (`TransformerConfig.__post_init__`); None if it does not."""
    a, model = resolved.model.architecture, resolved.model
    if module not in MODULES:
        return f"there is no module {module!r}, only {', '.join(MODULES)}"
    if module == "moe_act" and not a.moe_grouped_gemm:
        return (
            f"the experts of {model.name} are not computed as one grouped matrix product (moe_grouped_gemm)"
        )
    if module == "mla_up_proj" and not a.multi_latent_attention:
        return f"{module} needs multi-latent attention, which {model.name} does not have"
    overlapped = model.recipe.model_class == "DeepSeekModel" or model.recipe.name.startswith("llama4")
    if module == "shared_experts" and a.moe_shared_expert_intermediate_size and overlapped:
        return f"{module} of {model.name} overlap with communication (moe_shared_expert_overlap)"
    return None


def _missing(resolved: Resolved, module: str) -> str | None:
    """Return what a model lacks that a module is part of, as a clause; None if it lacks nothing.

    Layers without experts have no norms of their own: Transformer Engine computes them with the projection.
    """
    a = resolved.model.architecture
    if module == "core_attn":
        return None if has_attention(a) else "has no attention layers"
    if module in ("moe", "moe_act"):
        return None if a.num_moe_experts else "has no experts"
    if module == "shared_experts":
        return None if a.moe_shared_expert_intermediate_size else "has no shared experts"
    if module == "mlp":
        if a.kind == "hyena":
            return "does not recompute modules of its layers"
        all_experts = a.num_moe_experts and a.num_moe_layers == a.num_layers
        no_mlp = a.hybrid_override_pattern is not None and "-" not in a.hybrid_override_pattern
        return "has no dense MLP" if all_experts or no_mlp else None
    if module == "layernorm" and not (a.num_moe_experts or a.multi_latent_attention):
        return "has no separate norms: they are part of the projections after them"
    return None
