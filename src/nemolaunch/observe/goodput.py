"""Goodput: the share of a run's wall time that went into training, and where the rest went."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nemolaunch.observe.history import History, Span
from nemolaunch.observe.units import duration
from nemolaunch.run.attempts import start_times
from nemolaunch.run.metrics import rows

TRAINING = "training"
SHOWN_SHARE = 0.01
# The other parts, in the order in which they are listed where they take equally long
QUEUE, REQUEUE, START, FIRST = "waiting in the queue", "between attempts", "starting", "first step"
DATA, VALIDATING, SAVING = "waiting for data", "validating", "saving checkpoints"
LOST, OTHER = "steps lost and repeated", "other"


@dataclass(frozen=True, kw_only=True)
class Goodput:
    """Where the wall time of a run went.

    The wall time is that of all attempts, from the start of their processes to the last row they wrote; on Slurm it
    includes the time from the user's submission and between attempts. While nobody has the run started, no time passes.

    Attributes:
        parts: seconds by activity, `training` first, the others by length; their sum is the wall time.
    """

    parts: dict[str, float] = field(default_factory=dict)

    @property
    def wall_s(self) -> float:
        """The wall time in seconds."""
        return math.fsum(self.parts.values())

    @property
    def share(self) -> float:
        """The share of the wall time that went into training steps which count."""
        return self.parts[TRAINING] / self.wall_s if self.wall_s else 0.0

    @property
    def sentence(self) -> str:
        """The share of training and the largest others, such as `77% of 4 min 21 s; starting 23%`."""
        others = [f"{name} {share:.0%}" for name, _, share in self.shares()[1:] if share >= SHOWN_SHARE]
        return "; ".join(filter(None, [f"{self.share:.0%} of {duration(self.wall_s)}", ", ".join(others)]))

    def values(self) -> dict[str, Any]:
        """Return share, wall time and parts as values that JSON can hold."""
        return {"share": self.share, "wall_s": self.wall_s, "parts_s": self.parts}

    def shares(self) -> list[tuple[str, float, float]]:
        """Return (activity, seconds, share of the wall time)."""
        wall_s = self.wall_s or 1.0
        return [(name, seconds, seconds / wall_s) for name, seconds in self.parts.items()]


def goodput(history: History) -> Goodput | None:
    """Return where the wall time of a run went; None before its first step."""
    spans = history.spans
    if not any(span.times for span in spans):
        return None
    parts = dict.fromkeys(
        (TRAINING, QUEUE, REQUEUE, START, FIRST, DATA, VALIDATING, SAVING, LOST, OTHER), 0.0
    )
    begins = _Begins(history)
    before: float | None = None
    for number, span in enumerate(spans):
        begin, gap_s, is_queue = begins.of(span, before)
        parts[QUEUE if is_queue else REQUEUE] += gap_s
        parts[START] += span.began - begin
        # an attempt that starts from an earlier step does the steps after it again
        kept_until = min((later.step for later in spans[number + 1 :]), default=None)
        for name, seconds in _within(span, kept_until).items():
            parts[name] += seconds
        before = span.last
    training = parts.pop(TRAINING)
    others = sorted(((name, s) for name, s in parts.items() if s > 0), key=lambda part: -part[1])
    return Goodput(parts={TRAINING: training, **dict(others)})


def _within(span: Span, kept_until: int | None) -> dict[str, float]:
    """Return the seconds by activity from the start of an attempt's training to its last row.

    What the measured parts leave of that is `other`; where clocks disagree and they exceed it, they are scaled.
    """
    took = list(_took(span))
    first_s = _first_step_s(span, took)
    kept = [part for part in took if kept_until is None or part[0] <= kept_until]
    lost_s = math.fsum(seconds for step, seconds, _ in took) - math.fsum(s for _, s, _ in kept)
    data_s = math.fsum(waited for *_, waited in kept)
    training_s = math.fsum(seconds for _, seconds, _ in kept) - data_s
    # the first step is among the steps above, wherever they count
    if took and (kept_until is None or took[0][0] <= kept_until):
        training_s -= first_s
    else:
        lost_s -= first_s
    found = {
        TRAINING: training_s, DATA: data_s, LOST: lost_s, FIRST: first_s, VALIDATING: span.validating_s,
        SAVING: span.saving_s,
    }  # fmt: skip
    found = {name: max(0.0, seconds) for name, seconds in found.items()}
    span_s, measured_s = span.last - span.began, math.fsum(found.values())
    if measured_s > span_s:
        return {name: seconds * span_s / measured_s for name, seconds in found.items()}
    return {**found, OTHER: span_s - measured_s}


def _took(span: Span) -> Iterator[tuple[int, float, float]]:
    """Yield (step, seconds, seconds of them spent waiting for data) for each row, which may be of several steps."""
    before = span.step
    for index, (step, seconds) in enumerate(span.times):
        waited = min(span.waits.values[index], seconds) if index < len(span.waits) else 0.0
        yield step, seconds * (step - before), waited * (step - before)
        before = step


def _first_step_s(span: Span, took: list[tuple[int, float, float]]) -> float:
    """Return how much longer the first step took than the others, as memory and kernels are prepared in it."""
    if len(took) < 2:
        return 0.0
    steps = took[0][0] - span.step
    computed = [seconds - waited for _, seconds, waited in took]
    each = sorted(
        s / (step - before) for s, (step, *_), (before, *_) in zip(computed[1:], took[1:], took, strict=False)
    )
    return max(0.0, computed[0] - steps * each[len(each) // 2])


class _Begins:
    """When the processes of each attempt were started: as Slurm's script recorded it, else by their first phase."""

    def __init__(self, history: History) -> None:
        self._submitted, self._scripts = start_times(history.run)
        phases = [row for row in rows(history.run.phases) if "time" in row and "text" in row]
        # every attempt goes through the same phases, so that the first of them begins each
        self._phases = [float(row["time"]) for row in phases if row["text"] == phases[0]["text"]]

    def of(self, span: Span, before: float | None) -> tuple[float, float, bool]:
        """Return when an attempt began, how long it was waited for, and whether after a submission by the user.

        Args:
            before: when the attempt before it wrote its last row; None for the first.
        """
        since = -math.inf if before is None else before
        script = _latest(self._scripts, since, span.began)
        if script is None:
            phase = _latest(self._phases, since, span.began)
            return span.began if phase is None else phase, 0.0, False
        submitted = _latest(self._submitted, since, script)
        if submitted is not None:
            return script, script - submitted, True
        return script, 0.0 if before is None else script - before, False


def _latest(moments: list[float], since: float, until: float) -> float | None:
    """Return the latest of these moments in an interval, or None."""
    return max((moment for moment in moments if since <= moment <= until), default=None)
