"""What a run resumes from: the checkpoint, the plan it was trained by, and what changes there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.arithmetic.ramp import BatchSizes, batch_sizes_of
from nemolaunch.arithmetic.schedule import Schedule, schedule_of
from nemolaunch.facts import Facts
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.job import Job
from nemolaunch.run.folder import consumed_samples


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The training that a job continues.

    Attributes:
        checkpoint: the checkpoint it resumes from.
        step: optimizer steps done there.
        where: where it is, for messages: `the run in FOLDER` or `the checkpoint PATH`.
        values: the resolved job of that training, as returned by `Job.values()`; empty if no plan was found.
        architecture: its model's `Architecture`, by field name, as far as the plan has it.
        blend: (weight or None, prefix) of its data, as passed to Megatron.
        digests: prefix of each of its data files → digest of its content, as far as recorded.
        tokenizer_digest: identity of its tokenizer; None if not known.
        tokens_per_s: throughput of its last steps.
    """

    checkpoint: str
    step: int
    where: str
    values: dict[str, Any]
    architecture: dict[str, Any]
    blend: tuple[tuple[float | None, str], ...]
    digests: Mapping[str, str]
    tokenizer_digest: str | None
    tokens_per_s: float | None

    @property
    def schedule(self) -> Schedule | None:
        """The schedule it was trained with; None if not known."""
        return schedule_of(self.values)

    @property
    def samples(self) -> int | None:
        """Samples consumed there, as recorded in the checkpoint's name, else by its batch sizes; None if not known."""
        recorded = consumed_samples(Path(self.checkpoint))
        if recorded >= 0:
            return recorded
        return (
            batch_sizes_of(self.values).samples(self.step) if self.values.get("global_batch_size") else None
        )


def earlier(job: Job, facts: Facts) -> Earlier | None:
    """Return the training that the job continues: this run's own, or that of the checkpoint `--resume` names."""
    run, named = facts.run, facts.resume
    if job.checkpoint.resume == "never":
        return None
    if run.last_checkpoint is not None:
        return _earlier(run.last_checkpoint, run.next_step, f"the run in {run.folder}", run.saved)
    if named is not None and named.error is None:
        return _earlier(named.path, named.step, f"the checkpoint {named.path}", named.saved)
    return None


def _earlier(checkpoint: str, step: int, where: str, saved: SavedRun) -> Earlier:
    return Earlier(
        checkpoint=checkpoint,
        step=step,
        where=where,
        values=saved.values or {},
        architecture=saved.architecture or {},
        blend=saved.blend or (),
        digests=saved.digests,
        tokenizer_digest=saved.tokenizer_digest,
        tokens_per_s=saved.tokens_per_s,
    )


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


CHANGEABLE = ("weight_decay", "adam_beta1", "adam_beta2", "adam_eps", "clip_grad")


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
        (name, before.values[name], job.get(name))
        for name in CHANGEABLE
        if before.values.get(name) is not None and before.values[name] != job.get(name)
    ]
    return Resumption(
        checkpoint=before.checkpoint,
        step=before.step,
        samples=batch_sizes(job, before).done_samples or None,
        rate_before=old.rate(before.step) if old else None,
        rate=new.rate(before.step) if new else None,
        changes=tuple(changes),
        tokens_per_s=before.tokens_per_s if _same_processes(job, before) else None,
    )


def _same_processes(job: Job, before: Earlier) -> bool:
    return all(before.values.get(name) == job.get(name) for name in ("num_nodes", "num_gpus", "device"))
