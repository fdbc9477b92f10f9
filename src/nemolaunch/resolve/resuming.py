"""What a run resumes from: the checkpoint, the plan it was trained by, and what changes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemolaunch.arithmetic.schedule import Schedule, schedule_of
from nemolaunch.facts import Facts
from nemolaunch.job import Job


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The training that a job continues.

    Attributes:
        checkpoint: the checkpoint it resumes from.
        step: optimizer steps done there.
        values: the resolved job of that training, as returned by `Job.values()`, with the end of its decay; empty
            if no plan was found.
    """

    checkpoint: str
    step: int
    values: dict[str, Any]

    @property
    def schedule(self) -> Schedule | None:
        """The schedule it was trained with; None if not known."""
        return schedule_of(self.values)


def earlier(job: Job, facts: Facts) -> Earlier | None:
    """Return the training that the job continues: this run's own, or that of the checkpoint `--resume` names."""
    run, named = facts.run, facts.resume
    if job.checkpoint.resume == "never":
        return None
    if run.last_checkpoint is not None:
        return Earlier(checkpoint=run.last_checkpoint, step=run.next_step, values=run.values or {})
    if named is not None and named.error is None:
        return Earlier(checkpoint=named.path, step=named.step, values=named.values or {})
    return None


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """Where and how a job continues an earlier training.

    Attributes:
        checkpoint: the checkpoint it resumes from.
        step: optimizer steps done there.
        rate_before: learning rate of the next step by the schedule so far; None if not known.
        rate: learning rate of the next step by this plan.
        changes: optimizer settings that differ: (field, before, now).
    """

    checkpoint: str
    step: int
    rate_before: float | None
    rate: float | None
    changes: tuple[tuple[str, Any, Any], ...] = ()


CHANGEABLE = ("weight_decay", "adam_beta1", "adam_beta2", "adam_eps", "clip_grad")


def resumption(job: Job, before: Earlier | None) -> Resumption | None:
    """Return where a resolved job continues; None if it starts from scratch."""
    if before is None:
        return None
    old, new = before.schedule, schedule_of(job.values())
    changes = [
        (name, before.values[name], job.get(name))
        for name in CHANGEABLE
        if before.values.get(name) is not None and before.values[name] != job.get(name)
    ]
    return Resumption(
        checkpoint=before.checkpoint,
        step=before.step,
        rate_before=old.rate(before.step) if old else None,
        rate=new.rate(before.step) if new else None,
        changes=tuple(changes),
    )
