"""What a run resumes from: the checkpoint, the plan it was trained by, and what changes there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.arithmetic.ramp import BatchSizes, batch_sizes_of
from nemolaunch.arithmetic.schedule import Schedule, schedule_of
from nemolaunch.facts import Facts
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.job import Job
from nemolaunch.run.folder import consumed_samples

# The settings of the schedule, those of the optimizer that a checkpoint records beside it, and those that may change
SCHEDULE = (
    "lr", "min_lr", "lr_schedule", "warmup_steps", "decay_steps", "wsd_decay_steps", "wsd_decay_style"
)  # fmt: skip
HYPERPARAMETERS = ("weight_decay", "adam_beta1", "adam_beta2", "adam_eps")
CHANGEABLE = (*HYPERPARAMETERS, "clip_grad")


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The training that a job continues.

    Attributes:
        checkpoint: the checkpoint it resumes from.
        step: optimizer steps done there.
        where: where it is, for messages: `the run in FOLDER` or `the checkpoint PATH`.
        saved: what its plan says it was trained with.
    """

    checkpoint: str
    step: int
    where: str
    saved: SavedRun

    @property
    def schedule(self) -> Schedule | None:
        """The schedule it was trained with; None if not known."""
        return schedule_of(self.saved.values)

    @property
    def samples(self) -> int | None:
        """Samples consumed there, as recorded in the checkpoint's name, else by its batch sizes; None if not known."""
        recorded = consumed_samples(Path(self.checkpoint))
        if recorded >= 0:
            return recorded
        return (
            batch_sizes_of(self.saved.values).samples(self.step)
            if self.saved.values.get("global_batch_size")
            else None
        )


def earlier(job: Job, facts: Facts) -> Earlier | None:
    """Return the training that the job continues: this run's own, or that of the checkpoint `--resume` names."""
    run, named = facts.run, facts.resume
    if job.checkpoint.resume == "never":
        return None
    if run.last_checkpoint is not None:
        return Earlier(
            checkpoint=run.last_checkpoint,
            step=run.next_step,
            where=f"the run in {run.folder}",
            saved=run.saved,
        )
    if named is not None and named.error is None:
        return Earlier(
            checkpoint=named.path,
            step=named.step,
            where=f"the checkpoint {named.path}",
            saved=named.saved,
        )
    return None


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """Where and how a job continues an earlier training.

    Attributes:
        checkpoint: the checkpoint it resumes from.
        step: optimizer steps done there.
        samples: samples consumed there, if the job's own batch sizes would have consumed another number.
        rate_before: learning rate of the next step by the schedule so far; None if not known.
        rate: learning rate of the next step by this plan.
        changes: optimizer settings that differ: (field, before, now).
        tokens_per_s: throughput of the last steps so far; None if not known, or if the number of processes differs.
    """

    checkpoint: str
    step: int
    rate_before: float | None
    rate: float | None
    samples: int | None = None
    changes: tuple[tuple[str, Any, Any], ...] = ()
    tokens_per_s: float | None = None


def batch_sizes(job: Job, before: Earlier | None) -> BatchSizes:
    """Return the batch sizes of a job, which continues to read at the sample that the training before has reached."""
    sizes = batch_sizes_of(job.values())
    if before is None or before.samples is None or sizes.samples(before.step) == before.samples:
        return sizes
    return dataclasses.replace(sizes, done_steps=before.step, done_samples=before.samples)


def resumption(job: Job, before: Earlier | None) -> Resumption | None:
    """Return where a resolved job continues; None if it starts from scratch."""
    if before is None:
        return None
    old, new = before.schedule, schedule_of(job.values())
    changes = [
        (name, before.saved.values[name], job.get(name))
        for name in CHANGEABLE
        if before.saved.values.get(name) is not None and before.saved.values[name] != job.get(name)
    ]
    return Resumption(
        checkpoint=before.checkpoint,
        step=before.step,
        samples=batch_sizes(job, before).done_samples or None,
        rate_before=old.rate(before.step) if old else None,
        rate=new.rate(before.step) if new else None,
        changes=tuple(changes),
        tokens_per_s=before.saved.tokens_per_s if _same_processes(job, before) else None,
    )


def _same_processes(job: Job, before: Earlier) -> bool:
    return all(before.saved.values.get(name) == job.get(name) for name in ("num_nodes", "num_gpus", "device"))
