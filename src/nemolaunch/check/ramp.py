"""The ramp of the global batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nemolaunch.arithmetic.ramp import MOST_INCREMENTS, Ramp, ramp_of
from nemolaunch.check.batch import GBS, batch_unit
from nemolaunch.check.support import divisors, each, error, fix, flag, shown, sizes, warning
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved

RAMP = "rampup_batch_size"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the form of the ramp, and whether it can be trained."""
    text = resolved.job.batch.rampup_batch_size
    if text is None:
        return
    ramp = ramp_of(text)
    if ramp is None:
        yield error(
            "ramp-form",
            f"{shown(RAMP, text)} is not START:INCREMENT:SAMPLES, three whole numbers above 0",
            fix(**{RAMP: None}),
        )
        return
    yield from _unsupported(resolved, text)
    yield from _values(resolved, ramp)


def _unsupported(resolved: Resolved, text: str) -> Iterator[Finding]:
    if resolved.model.architecture.kind == "t5":
        yield error(
            "ramp-unsupported",
            f"{shown(RAMP, text)} is not possible: the batch size of {resolved.model.name}, an encoder-decoder, is "
            "constant",
            fix(**{RAMP: None}),
        )
    if resolved.job.speed.cuda_graphs:
        yield error(
            "ramp-unsupported",
            f"{shown(RAMP, text)} cannot be combined with {flag('cuda_graphs')}: graphs are captured for one number of "
            "micro batches",
            fix(cuda_graphs=False),
            fix(**{RAMP: None}),
        )


def _values(resolved: Resolved, ramp: Ramp) -> Iterator[Finding]:
    full, unit, s = resolved.job.batch.global_batch_size, batch_unit(resolved), sizes(resolved)
    if s.world < s.replica or s.world % s.replica or full % unit:
        return  # reported by the rules of the layout and of the batch
    if not ramp.reaches(full):
        yield error(
            "ramp-increments",
            f"{shown(RAMP, ramp)} does not lead to {shown(GBS, full)}: START must be below it, and (GBS - START) / "
            f"INCREMENT = ({full} - {ramp.start}) / {ramp.increment} a whole number of at most {MOST_INCREMENTS:,}",
            *_valid(resolved, ramp),
        )
        return
    if ramp.start % unit or ramp.increment % unit:
        interleaved = f"·PP = {unit}" if s.pp > 1 and s.vpp else f" = {unit}"
        yield error(
            "ramp-by-data-parallel",
            f"{shown(RAMP, ramp)}: START {ramp.start} and INCREMENT {ramp.increment} must be multiples of "
            f"MBS·DP{interleaved}",
            *_valid(resolved, ramp),
        )
        return
    yield from _readers(resolved, ramp)
    yield from _length(resolved, ramp)


def _valid(resolved: Resolved, ramp: Ramp) -> tuple[Fix, ...]:
    """Return the nearest ramp that the job can train; no ramp if there is none."""
    full, unit = resolved.job.batch.global_batch_size, batch_unit(resolved)
    start = min(max(unit, ramp.start // unit * unit), full - unit)
    if start < unit:
        return (fix(**{RAMP: None}),)
    steps = [d for d in divisors((full - start) // unit) if (full - start) // (d * unit) <= MOST_INCREMENTS]
    increment = unit * min(steps, key=lambda d: abs(d * unit - ramp.increment))
    return each(RAMP, [str(Ramp(start=start, increment=increment, samples=ramp.samples))])


def _readers(resolved: Resolved, ramp: Ramp) -> Iterator[Finding]:
    """Check that the readers of a stream share the batches of a ramp evenly."""
    readers, ranks = resolved.job.stream.stream_readers or 0, resolved.data_parallel_size
    full = resolved.job.batch.global_batch_size
    if resolved.stream is None or readers < 1 or readers % max(1, ranks) or full % readers:
        return  # reported by the rules of streams
    if ramp.start % readers or ramp.increment % readers:
        shared = math.gcd(full, ramp.start, ramp.increment)
        kept = resolved.origins.get("stream_readers") == "the run so far"
        good = max(n for n in divisors(shared) if n % ranks == 0 and n <= readers)
        yield error(
            "stream-readers",
            f"{shown('stream_readers', readers)} must divide START and INCREMENT of {shown(RAMP, ramp)}",
            *([] if kept else each("stream_readers", [good])),
            fix(**{RAMP: None}),
        )


def _length(resolved: Resolved, ramp: Ramp) -> Iterator[Finding]:
    """Report a ramp that does not end before the run does."""
    steps, batches = resolved.job.batch.max_steps or 0, resolved.batch_sizes
    if batches.ramp is None or steps < 1 or steps > batches.ramp_steps:
        return
    last = batches.size(steps - 1)
    read = batches.samples(steps)
    yield warning(
        "ramp-beyond-run",
        f"{shown(RAMP, ramp)} ends at step {batches.ramp_steps + 1:,}, but the run at step {steps:,}, with a batch of "
        f"{last:,}: {shown(GBS, batches.full)} is never reached",
        *each(RAMP, [str(Ramp(start=ramp.start, increment=ramp.increment, samples=max(1, read // 10)))]),
        *([fix(max_steps=batches.ramp_steps * 10)] if "max_steps" not in resolved.computed else []),
    )
