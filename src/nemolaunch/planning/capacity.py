"""Findings from the estimates: whether the job fits the GPUs, the machine and the disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

from nemolaunch.check import check
from nemolaunch.check.support import error, fix, note, shown, warning
from nemolaunch.estimate import Estimate, Layout, estimate
from nemolaunch.estimate.suggest import nearest_fitting
from nemolaunch.findings import Finding, Fix, errors
from nemolaunch.resolve import Resolved, changed
from nemolaunch.system.quantities import counted

LIBRARIES_BYTES = 2**30  # NeMo and its libraries in each process
USABLE_HOST_SHARE = 0.95
TRIED_LAYOUTS = 12
MORE_NODES = (2, 4, 8, 16, 32)
GIB = 2**30
Say = Callable[..., Finding]


def findings(
    resolved: Resolved, estimated: Estimate | None, found: Collection[Finding], *, starts: bool
) -> Iterator[Finding]:
    """Yield findings about memory and disk; none if other errors leave the layout undetermined.

    `starts`: the job is about to start from here. Otherwise it may be meant for another machine, so that what this
    one lacks is only a warning.
    """
    if estimated is None or any(f.code in UNSETTLING for f in errors(found)):
        return
    yield from _gpu_memory(resolved, estimated)
    on_cluster = bool(resolved.facts.partitions)
    say = error if starts or on_cluster else warning
    here = resolved.job.launch.is_here
    if here:
        yield from _host_memory(resolved, estimated, say)
    if here or starts or on_cluster:
        yield from _disk(resolved, estimated, say)


# Errors whose fix changes how much a rank holds
UNSETTLING = frozenset({
    "out-of-range", "world-by-layout", "world-by-experts", "layers-by-pp", "layers-by-vpp", "experts-by-ep",
    "batch-by-data-parallel", "heads-by-tp", "query-groups-by-tp", "ffn-by-tp", "more-processes-than-gpus",
    "sgd-is-not-sharded", "instances-not-sharded", "instances-by-data-parallel", "local-nodes", "cpu-despite-gpus",
    "documents-as-sequences",
})  # fmt: skip


def _gpu_memory(resolved: Resolved, e: Estimate) -> Iterator[Finding]:
    """Check GPU memory: an error if the GPU is known, otherwise a warning, since it may be a different one."""
    if e.fits:
        return
    m = e.memory
    needs = f"{m.total / GIB:,.1f} GiB ± {m.error / GIB:,.1f} on {m.rank}"
    has = f"{e.gpu.name} ({e.gpu_origin}) has {e.gpu.memory_bytes / GIB:,.0f} GiB"
    if e.fits is None:
        yield note("gpu-memory-tight", f"the job needs {needs}, and {has}: it may not fit")
        return
    say = error if resolved.device == "gpu" and resolved.gpu_is_known else warning
    found = _fitting(resolved, e)
    none = "" if found else f"; found no layout of {resolved.model.name} that fits: use more or larger GPUs"
    yield say("gpu-memory", f"the job needs {needs}, but {has}{none}", *([found] if found else []))


def _fitting(resolved: Resolved, e: Estimate) -> Fix | None:
    """Find a layout that fits on the same GPUs, else on more nodes; each is checked and estimated again."""
    for times in (1, *(MORE_NODES if resolved.job.launch.executor == "slurm" else ())):
        asked = e.layout.with_values(world_size=e.layout.world_size * times)
        more = {"num_nodes": resolved.job.launch.num_nodes * times} if times > 1 else {}
        ranked = nearest_fitting(resolved.model.architecture, asked, e.gpu, e.vocab_rows)
        for suggestion in itertools.islice(ranked, TRIED_LAYOUTS):
            changes = {**more, **_changes(resolved, suggestion.layout)}
            other = changed(resolved, changes)
            new = estimate(other)
            if new and new.fits and len(errors(check(other))) <= len(errors(check(resolved))):
                return fix(**changes)
    return None


def _changes(resolved: Resolved, layout: Layout) -> dict[str, Any]:
    """Return the field changes that give the job this layout."""
    job = resolved.job
    wanted: dict[str, Any] = {
        "tensor_model_parallel_size": layout.tensor,
        "pipeline_model_parallel_size": layout.pipeline,
        "virtual_pipeline_model_parallel_size": layout.virtual if layout.virtual > 1 else None,
        "context_parallel_size": layout.context,
        "sequence_parallel": layout.sequence_parallel,
        "expert_model_parallel_size": layout.expert,
        "micro_batch_size": layout.micro_batch_size,
    }
    if resolved.model.architecture.num_moe_experts:
        wanted["expert_tensor_parallel_size"] = (
            None if layout.expert_tensor == layout.tensor else layout.expert_tensor
        )
    if layout.recompute_granularity:
        wanted["recompute_granularity"] = layout.recompute_granularity
        wanted["recompute_method"] = layout.recompute_method
        wanted["recompute_num_layers"] = layout.recompute_num_layers
        wanted["recompute_modules"] = ()
        wanted.update(dict.fromkeys(_OFFLOADING, False), cpu_offloading_layers=None)
    return {name: value for name, value in wanted.items() if value != job.get(name)}


_OFFLOADING = ("cpu_offloading", "cpu_offloading_activations", "cpu_offloading_weights")


def _host_memory(resolved: Resolved, e: Estimate, say: Say) -> Iterator[Finding]:
    """Check this machine's memory if all processes run on it."""
    launch, host = resolved.job.launch, resolved.facts.host
    each = e.memory.host if e.rehearsal is None else e.rehearsal.total
    if not each or not host.memory_bytes:
        return
    processes = launch.num_gpus or 1
    needed, there = processes * (each + LIBRARIES_BYTES), host.memory_bytes
    if needed <= there * USABLE_HOST_SHARE:
        return
    how = " (--dev-run shrinks the job)" if e.rehearsal else ""
    yield say(
        "host-memory",
        f"{counted(processes, 'process needs', 'processes need')} {needed / GIB:,.1f} GiB of host memory, but this "
        f"machine has {there / GIB:,.1f} GiB{how}",
    )


def _disk(resolved: Resolved, e: Estimate, say: Say) -> Iterator[Finding]:
    """Check the run folder's file system; checkpoints of an earlier run there are replaced."""
    run, d, keep = resolved.facts.run, e.disk, resolved.job.checkpoint.keep_latest
    free = run.free_bytes
    if free is None:
        return
    count = 1 if run.last_checkpoint else d.checkpoints
    if free < d.checkpoint:
        yield say(
            "disk", f"a checkpoint needs {_gb(d.checkpoint)}, but {run.folder} has only {_gb(free)} free"
        )
    elif free < count * d.checkpoint:
        fewer = min(free // d.checkpoint - 1, keep - 1 if keep > 0 else count)
        yield warning(
            "disk-tight",
            f"{shown('keep_latest', keep)} needs room for {count} checkpoints of {_gb(d.checkpoint)}, but "
            f"{run.folder} has only {_gb(free)} free",
            *([fix(keep_latest=fewer)] if fewer >= 1 else []),
        )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"
