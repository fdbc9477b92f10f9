"""Recomputation of activations in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.families import split_of
from nemolaunch.check.support import each, error, fix, flag, no_effect, note, shown, sizes, warning
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.recompute import DEFAULT_MODULES, selected_modules

NEED_OTHER_FP8 = {"layernorm", "moe_act"}


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the three recompute flags in combination with each other and with fp8."""
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
            f"{no_effect(given)} without {flag('recompute_granularity')}",
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
            f"{shown('recompute_granularity', 'full')} needs {' and '.join(map(flag, missing))}",
            fix(**{name: wanted[name] for name in missing}),
        )
        return
    layers = layers_per_chunk(resolved)
    if (m.recompute_num_layers or 0) > layers:
        yield warning(
            "recompute-beyond-layers",
            f"{shown('recompute_num_layers', m.recompute_num_layers)} exceeds the {layers} layers of a "
            f"{'virtual ' if sizes(resolved).vpp else ''}pipeline stage, so all of them are recomputed",
            *each("recompute_num_layers", [layers]),
            about="recompute_num_layers",
        )
    one_by_one = resolved.model.architecture.mtp_num_layers and m.recompute_method == "uniform"
    if one_by_one and m.recompute_num_layers != 1:
        yield error(
            "recompute-prediction-layers",
            f"{shown('recompute_num_layers', m.recompute_num_layers)} is not possible: multi-token-prediction layers "
            "must be recomputed one at a time",
            *each("recompute_num_layers", [1]),
            about="recompute_num_layers",
        )


def layers_per_chunk(resolved: Resolved) -> int:
    """Return the maximum number of layers in one (virtual) pipeline stage, at least 1."""
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
            f"{shown('recompute_num_layers', m.recompute_num_layers)} cannot be combined with "
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
    if resolved.device == "gpu" and selected_modules(resolved.job, resolved.model.recipe) == DEFAULT_MODULES:
        yield note(
            "recompute-core-attention",
            f"{shown('recompute_granularity', 'selective')} recomputes core attention only, "
            "which fused attention already does",
        )


def _with_fp8(resolved: Resolved) -> Iterator[Finding]:
    clash = NEED_OTHER_FP8 & set(selected_modules(resolved.job, resolved.model.recipe))
    batch, given = resolved.job.batch, resolved.job.memory.recompute_modules
    if batch.fp8 and batch.fp8_recipe == "delayed" and batch.precision != "fp32" and clash:
        yield error(
            "recompute-with-fp8",
            f"{flag('fp8')} with delayed scaling cannot recompute {', '.join(sorted(clash))}, which "
            f"{flag('recompute_modules') if given else f'the recipe of {resolved.model.name}'} does",
            fix(fp8_recipe="tensorwise"),
            fix(
                recompute_granularity="full",
                recompute_method="uniform",
                recompute_num_layers=1,
                **({"recompute_modules": ()} if given else {}),
            ),
            fix(fp8=False),
        )
