"""Where training starts from, and whether the run folder belongs to this job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemolaunch.check.support import each, error, fix, flag, note, shown, warning
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.startpoint import SHAPE_FIELDS, StartPoint


def start(resolved: Resolved) -> Iterator[Finding]:
    """The checkpoints that `--nemo-model` and `--resume` name."""
    facts, job = resolved.facts, resolved.job
    if facts.weights is not None:
        yield from _named(resolved, facts.weights, "nemo_model", fix(nemo_model=None))
    if facts.resume is not None:
        yield from _named(resolved, facts.resume, "resume", fix(resume="auto"))
    if job.model.nemo_model and facts.run.last_checkpoint and job.checkpoint.resume == "auto":
        yield note(
            "weights-not-used",
            f"{flag('nemo_model')} is not read: the run goes on from {facts.run.last_checkpoint}",
        )


def _named(resolved: Resolved, found: StartPoint, name: str, otherwise: Fix) -> Iterator[Finding]:
    if found.error:
        yield error("checkpoint-unusable", f"{shown(name, found.path)}: {found.error}", otherwise)
        return
    other = differences(found.shape, shape_of(resolved))
    if found.model_class and found.model_class != resolved.model.recipe.model_class:
        other.insert(0, f"it is a {found.model_class}, the job a {resolved.model.recipe.model_class}")
    if other:
        yield error("checkpoint-other-model", f"{shown(name, found.path)}: {'; '.join(other)}", otherwise)


def shape_of(resolved: Resolved) -> dict[str, Any]:
    """The job's own values of what has to agree with a checkpoint."""
    a = resolved.model.architecture
    return {name: getattr(a, name) for name in SHAPE_FIELDS}


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What differs among the fields that both know, in words."""
    return [
        f"its {name} is {theirs[name]}, the job's {ours[name]}"
        for name in SHAPE_FIELDS
        if theirs.get(name) is not None and ours.get(name) is not None and theirs[name] != ours[name]
    ]


def run_folder(resolved: Resolved) -> Iterator[Finding]:
    """The folder itself; an earlier run in it: the same model, an optimizer that can be taken over."""
    run, job = resolved.facts.run, resolved.job
    if run.error:
        yield error("run-folder", f"the run folder cannot be written: {run.error}", *_other_folder(resolved))
    if run.last_checkpoint is None or job.checkpoint.resume == "never":
        return
    other = differences(run.architecture or {}, shape_of(resolved))
    if other:
        yield error(
            "run-of-other-model",
            f"{run.folder} holds a run of another model: {'; '.join(other)}",
            _elsewhere(resolved),
        )
        return
    yield from _optimizer_state(resolved)
    steps = job.batch.max_steps or 0
    if 0 < steps <= run.next_step and (run.finished_step or 0) < steps:
        yield warning(
            "run-beyond-steps",
            f"{shown('max_steps', steps)}: the run in {run.folder} is at step {run.next_step} already",
            *each("max_steps", [run.next_step + 1]),
            about="max_steps",
        )


def _other_folder(resolved: Resolved) -> tuple[Fix, ...]:
    return (fix(output_dir=None),) if resolved.job.launch.output_dir else ()


def _elsewhere(resolved: Resolved) -> Fix:
    launch = resolved.job.launch
    if launch.output_dir:
        return fix(output_dir=launch.output_dir.rstrip("/") + "-2")
    return fix(experiment=launch.experiment + "-2")


# Saved optimizer state cannot be read back under another value of these: the sharded layouts differ
KEPT = ("disable_dist_optim", "expert_model_parallel_size", "optimizer")


def _optimizer_state(resolved: Resolved) -> Iterator[Finding]:
    before = resolved.facts.run.values or {}
    for name in KEPT:
        if name in before and before[name] != resolved.job.get(name):
            yield error(
                "run-of-other-optimizer-layout",
                f"{shown(name, resolved.job.get(name))}: the run in {resolved.facts.run.folder} was saved "
                f"with {before[name]}",
                *each(name, [before[name]]),
                _elsewhere(resolved),
            )
