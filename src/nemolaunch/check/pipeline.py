"""Pipeline parallelism: how layers divide over stages and virtual stages."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nemolaunch.check.families import limits_of, splits
from nemolaunch.check.support import (
    ParallelSizes,
    around,
    each,
    error,
    fits_world,
    fix,
    shown,
    sizes,
    warning,
    without,
)
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved

PP = "pipeline_model_parallel_size"
VPP = "virtual_pipeline_model_parallel_size"


def stages(resolved: Resolved) -> Iterator[Finding]:
    """Check the layers against the number of pipeline stages."""
    s, limits = sizes(resolved), limits_of(resolved)
    if s.pp > 1 and limits.no_pipeline:
        yield error(
            "pp-unsupported",
            f"{shown(PP, s.pp)} is not possible: {resolved.model.name} does not support pipeline parallelism "
            f"because {limits.no_pipeline}",
            without(resolved, PP, VPP),
        )
    elif not splits(resolved, s.pp, None):
        yield error(
            "layers-by-pp",
            f"{shown(PP, s.pp)} does not divide the {_layers(resolved)} of {resolved.model.name}",
            *each(PP, _pp_choices(resolved, s)),
            about=PP,
        )


def _layers(resolved: Resolved) -> str:
    a = resolved.model.architecture
    counted = a.account_for_embedding_in_pipeline_split + a.account_for_loss_in_pipeline_split
    ends = f" (or {a.num_layers + counted} with embedding and output counted)" if counted else ""
    return f"{a.num_layers} layers{ends}"


def _pp_choices(resolved: Resolved, s: ParallelSizes) -> tuple[int, ...]:
    good = [pp for pp in range(1, resolved.model.architecture.num_layers + 3) if splits(resolved, pp, None)]
    fits = [pp for pp in good if fits_world(resolved, math.lcm(s.tp * pp * s.cp, s.etp * s.ep * pp))]
    return around(s.pp, fits) or around(s.pp, good)


def virtual(resolved: Resolved) -> Iterator[Finding]:
    """Check the layers against the number of virtual stages."""
    s, limits = sizes(resolved), limits_of(resolved)
    if s.vpp is None:
        return
    if s.pp == 1:
        yield warning("vpp-without-pp", f"{shown(VPP, s.vpp)} has no effect with {shown(PP, 1)}", _drop())
        return
    if limits.no_virtual_pipeline:
        yield error(
            "vpp-unsupported",
            f"{shown(VPP, s.vpp)} is not possible: {resolved.model.name} does not support virtual stages because "
            f"{limits.no_virtual_pipeline}",
            _drop(),
        )
    elif splits(resolved, s.pp, None) and not splits(resolved, s.pp, s.vpp):
        most = resolved.model.architecture.num_layers // s.pp + 2
        choices = around(s.vpp, [vpp for vpp in range(2, most + 1) if splits(resolved, s.pp, vpp)])
        yield error(
            "layers-by-vpp",
            f"{shown(VPP, s.vpp)} does not divide the {_layers(resolved)} of {resolved.model.name} "
            f"over {s.pp} stages",
            *(each(VPP, choices) or (_drop(),)),
            about=VPP,
        )


def _drop() -> Fix:
    return fix(virtual_pipeline_model_parallel_size=None)
