"""Offload of activations or optimizer state to host memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, no_effect, shown, sizes, warning, without
from nemolaunch.findings import Finding
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved

DETAILS = ("cpu_offloading_layers", "cpu_offloading_activations", "cpu_offloading_weights")
FRACTION = "optim_cpu_offloading_frac"


def activations(resolved: Resolved) -> Iterator[Finding]:
    """Check `--cpu-offloading` and its settings."""
    m = resolved.job.memory
    if not m.cpu_offloading:
        if resolved.device == "gpu":
            yield from _details_alone(resolved)
        return
    yield from _layers(resolved)
    if sizes(resolved).pp > 1:
        yield error(
            "offload-with-pp",
            f"{flag('cpu_offloading')} cannot be combined with "
            f"{shown('pipeline_model_parallel_size', sizes(resolved).pp)}",
            without(resolved, "cpu_offloading", *DETAILS),
            without(resolved, "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size"),
        )
    if m.recompute_granularity is not None:
        yield error(
            "offload-with-recompute",
            f"{flag('cpu_offloading')} cannot be combined with "
            f"{shown('recompute_granularity', m.recompute_granularity)}",
            without(
                resolved,
                "recompute_granularity",
                "recompute_method",
                "recompute_num_layers",
                "recompute_modules",
            ),
            without(resolved, "cpu_offloading", *DETAILS),
        )
    if not m.cpu_offloading_activations:
        yield error(
            "offload-nothing",
            f"{flag('cpu_offloading')} with weights only has no effect: Transformer Engine no longer offloads weights"
            if m.cpu_offloading_weights
            else f"{flag('cpu_offloading')} without {flag('cpu_offloading_activations')} offloads nothing",
            fix(cpu_offloading_activations=True),
        )
    elif m.cpu_offloading_weights:
        yield warning(
            "offload-weights",
            f"{flag('cpu_offloading_weights')} has no effect: Transformer Engine no longer offloads weights",
            fix(cpu_offloading_weights=False),
        )


def _details_alone(resolved: Resolved) -> Iterator[Finding]:
    given = [name for name in DETAILS if resolved.job.get(name) not in (None, False)]
    if given:
        yield error(
            "offload-not-switched-on",
            f"{no_effect(given)} without {flag('cpu_offloading')}",
            fix(cpu_offloading=True),
            without(resolved, *given),
        )


def _layers(resolved: Resolved) -> Iterator[Finding]:
    total, given = resolved.model.architecture.num_layers, resolved.job.memory.cpu_offloading_layers
    if total < 2:
        yield error(
            "offload-layers",
            f"{flag('cpu_offloading')} needs at least 2 layers; {resolved.model.name} has only one",
            without(resolved, "cpu_offloading", *DETAILS),
        )
    elif given is None or not 1 <= given < total:
        problem = "is not given" if given is None else f"{given} is not between 1 and {total - 1}"
        yield error(
            "offload-layers",
            f"{flag('cpu_offloading_layers')} {problem}; {resolved.model.name} has {total} layers",
            *each("cpu_offloading_layers", [1 if given == 0 else total - 1]),
            about="cpu_offloading_layers",
        )


def optimizer(resolved: Resolved) -> Iterator[Finding]:
    """Check `--optim-cpu-offloading` and the fraction to offload."""
    m, o = resolved.job.memory, resolved.job.optimizer
    fraction = m.optim_cpu_offloading_frac
    if not (math.isfinite(fraction) and 0 < fraction <= 1):
        yield error(
            "offload-fraction",
            f"{shown(FRACTION, fraction)} is out of range: it must be above 0 and at most 1",
            *each(FRACTION, [spec_of(FRACTION).default]),
            about=FRACTION,
        )
    elif fraction != spec_of(FRACTION).default and not m.optim_cpu_offloading and resolved.device == "gpu":
        yield error(
            "optimizer-offload-not-switched-on",
            f"{shown(FRACTION, fraction)} has no effect without {flag('optim_cpu_offloading')}",
            fix(optim_cpu_offloading=True),
            *each(FRACTION, [spec_of(FRACTION).default]),
        )
    if not m.optim_cpu_offloading:
        return
    if o.optimizer != "adam":
        yield error(
            "optimizer-offload-needs-adam",
            f"{flag('optim_cpu_offloading')} cannot be combined with {shown('optimizer', o.optimizer)}",
            fix(optimizer="adam"),
            fix(optim_cpu_offloading=False),
        )
    if o.disable_dist_optim:
        yield error(
            "optimizer-offload-needs-sharding",
            f"{flag('optim_cpu_offloading')} cannot be combined with {flag('disable_dist_optim')}",
            fix(disable_dist_optim=False),
            fix(optim_cpu_offloading=False),
        )
