"""Global and micro batch size."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.ranges import MOST
from nemolaunch.check.support import each, error, multiples_near, note, shown, sizes
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved

GBS = "global_batch_size"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """The global batch by micro batch, replicas and pipeline."""
    s, batch = sizes(resolved), resolved.job.batch
    if s.world < s.replica or s.world % s.replica:
        return  # no whole number of replicas to share the batch: the rules of the layout say so
    asked = shown(GBS, batch.global_batch_size)
    unit = batch.micro_batch_size * s.data_parallel
    if batch.global_batch_size % unit:
        yield error(
            "batch-by-data-parallel",
            f"{asked} is not a multiple of {batch.micro_batch_size}·{s.data_parallel}",
            *_multiples(resolved),
            about=GBS,
        )
        return
    microbatches = batch.global_batch_size // unit
    if s.pp > 1 and s.vpp and microbatches % s.pp:
        yield error(
            "microbatches-by-pp",
            f"{asked} gives {microbatches} microbatches a step, "
            f"not a multiple of PP = {s.pp}, which -VPP needs",
            *_multiples(resolved),
            about=GBS,
        )
    elif s.pp > 1 and microbatches < s.pp:
        yield note(
            "pipeline-mostly-idle",
            f"{asked} gives {microbatches} microbatch(es) a step for {s.pp} pipeline "
            "stages: most of them wait",
            *each(GBS, [unit * s.pp * 4]),
            about=GBS,
        )


def batch_unit(resolved: Resolved) -> int:
    """The global batch is a multiple of this."""
    s = sizes(resolved)
    interleaved = s.pp > 1 and s.vpp
    return resolved.job.batch.micro_batch_size * s.data_parallel * (s.pp if interleaved else 1)


def _multiples(resolved: Resolved) -> tuple[Fix, ...]:
    """Batches next to the one asked for that divide; a smaller micro batch where there is none in range."""
    batch = resolved.job.batch
    unit = batch_unit(resolved)
    found = [value for value in multiples_near(batch.global_batch_size, unit) if value <= MOST]
    return each(GBS, found) if found else each("micro_batch_size", [1])
