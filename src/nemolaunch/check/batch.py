"""Global and micro batch size."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.ranges import MOST
from nemolaunch.check.support import each, error, multiples_near, note, shown, sizes
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.system.quantities import counted

GBS = "global_batch_size"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the global batch size against micro batch size, data parallel size and pipeline."""
    s, batch = sizes(resolved), resolved.job.batch
    if s.world < s.replica or s.world % s.replica:
        return  # no whole number of replicas: reported by the layout rules
    given = shown(GBS, batch.global_batch_size)
    unit = batch.micro_batch_size * s.data_parallel
    if batch.global_batch_size % unit:
        yield error(
            "batch-by-data-parallel",
            f"{given} is not a multiple of MBS·DP = {batch.micro_batch_size}·{s.data_parallel} = {unit}",
            *_multiples(resolved),
            about=GBS,
        )
        return
    microbatches = batch.global_batch_size // unit
    if s.pp > 1 and s.vpp and microbatches % s.pp:
        yield error(
            "microbatches-by-pp",
            f"{given} gives {microbatches} microbatches per step, but -VPP needs a multiple of PP = {s.pp}",
            *_multiples(resolved),
            about=GBS,
        )
    elif s.pp > 1 and microbatches < s.pp:
        yield note(
            "pipeline-mostly-idle",
            f"{given} gives {counted(microbatches, 'microbatch', 'microbatches')} per step for {s.pp} "
            "pipeline stages, so stages sit idle most of the time",
            *each(GBS, [unit * s.pp * 4]),
            about=GBS,
        )


def batch_unit(resolved: Resolved) -> int:
    """Return the number that the global batch size must be a multiple of."""
    s = sizes(resolved)
    interleaved = s.pp > 1 and s.vpp
    return resolved.job.batch.micro_batch_size * s.data_parallel * (s.pp if interleaved else 1)


def _multiples(resolved: Resolved) -> tuple[Fix, ...]:
    """Return the nearest valid global batch sizes, or a smaller micro batch if none is in range."""
    batch = resolved.job.batch
    unit = batch_unit(resolved)
    found = [value for value in multiples_near(batch.global_batch_size, unit) if value <= MOST]
    return each(GBS, found) if found else each("micro_batch_size", [1])
