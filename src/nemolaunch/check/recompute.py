"""Recomputing activations in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.families import split_of
from nemolaunch.check.support import each, error, fix, flag, note, shown, sizes, warning
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

# Megatron's default for selective recompute, megatron.core.transformer.transformer_config
DEFAULT_MODULES = ("core_attn",)
NEED_OTHER_FP8 = {"layernorm", "moe_act"}


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Combinations of the three recompute flags, with each other and with fp8."""
    m = resolved.job.memory
    if m.recompute_granularity is None:
        yield from _ignored(resolved)
    elif m.recompute_granularity == "full":
        yield from _full(resolved)
    else:
        yield from _selective(resolved)
    yield from _with_fp8(resolved)


def _ignored(resolved: Resolved) -> Iterator[Finding]:
    m = resolved.job.memory
    given = [name for name in ("recompute_method", "recompute_num_layers") if getattr(m, name) is not None]
    if given:
        yield error(
            "recompute-without-granularity",
            f"{' and '.join(map(flag, given))} without {flag('recompute_granularity')} does nothing",
            fix(
                recompute_granularity="full",
                recompute_method=m.recompute_method or "uniform",
                recompute_num_layers=m.recompute_num_layers or 1,
            ),
            fix(**dict.fromkeys(given)),
        )


def _full(resolved: Resolved) -> Iterator[Finding]:
    m = resolved.job.memory
    missing = [name for name in ("recompute_method", "recompute_num_layers") if getattr(m, name) is None]
    if missing:
        wanted = {"recompute_method": "uniform", "recompute_num_layers": 1}
        yield error(
            "recompute-incomplete",
            f"{shown('recompute_granularity', 'full')} without {' and '.join(map(flag, missing))}",
            fix(**{name: wanted[name] for name in missing}),
        )
        return
    layers = layers_per_chunk(resolved)
    if (m.recompute_num_layers or 0) > layers:
        yield warning(
            "recompute-beyond-layers",
            f"{shown('recompute_num_layers', m.recompute_num_layers)} is more than the {layers} layers of a "
            f"{'virtual ' if sizes(resolved).vpp else ''}pipeline stage: it means all of them",
            *each("recompute_num_layers", [layers]),
            about="recompute_num_layers",
        )
    one_by_one = resolved.model.architecture.mtp_num_layers and m.recompute_method == "uniform"
    if one_by_one and m.recompute_num_layers != 1:
        yield error(
            "recompute-prediction-layers",
            f"{shown('recompute_num_layers', m.recompute_num_layers)}: layers that predict further tokens "
            "can be recomputed one by one only",
            *each("recompute_num_layers", [1]),
            about="recompute_num_layers",
        )


def layers_per_chunk(resolved: Resolved) -> int:
    """The most layers in one (virtual) pipeline stage; at least 1."""
    s = sizes(resolved)
    split = split_of(resolved, s.pp, s.vpp)
    if split is None:
        return max(1, resolved.model.architecture.num_layers)
    return max(1, -(-max(split.layers) // (s.vpp or 1)))


def _selective(resolved: Resolved) -> Iterator[Finding]:
    m = resolved.job.memory
    if m.recompute_num_layers is not None:
        yield error(
            "recompute-layers-with-selective",
            f"{shown('recompute_num_layers', m.recompute_num_layers)} with "
            f"{shown('recompute_granularity', 'selective')}",
            fix(recompute_num_layers=None),
            fix(recompute_granularity="full", recompute_method=m.recompute_method or "uniform"),
        )
    if m.recompute_method is not None:
        yield warning(
            "recompute-method-with-selective",
            f"{shown('recompute_method', m.recompute_method)} has no effect with "
            f"{shown('recompute_granularity', 'selective')}",
            fix(recompute_method=None),
        )
    if resolved.device == "gpu" and selected_modules(resolved) == DEFAULT_MODULES:
        yield note(
            "recompute-core-attention",
            f"{shown('recompute_granularity', 'selective')} recomputes core attention only, "
            "which fused attention does anyway",
        )


def selected_modules(resolved: Resolved) -> tuple[str, ...]:
    """Modules recomputed by `selective`; empty where it is not in effect."""
    m, recipe = resolved.job.memory, resolved.model.recipe
    granularity = m.recompute_granularity
    if granularity is None and not m.cpu_offloading:
        granularity = recipe.recompute_granularity
    return (recipe.recompute_modules or DEFAULT_MODULES) if granularity == "selective" else ()


def _with_fp8(resolved: Resolved) -> Iterator[Finding]:
    clash = NEED_OTHER_FP8 & set(selected_modules(resolved))
    batch = resolved.job.batch
    if batch.fp8 and batch.fp8_recipe == "delayed" and batch.precision != "fp32" and clash:
        yield error(
            "recompute-with-fp8",
            f"{flag('fp8')}: {resolved.model.name} recomputes {', '.join(sorted(clash))}, "
            "which delayed scaling cannot",
            fix(fp8_recipe="tensorwise"),
            fix(recompute_granularity="full", recompute_method="uniform", recompute_num_layers=1),
            fix(fp8=False),
        )
