"""Where training starts from, and whether the run folder belongs to this job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemolaunch.check.objective import MASKING
from nemolaunch.check.support import each, error, fix, flag, note, shown, warning
from nemolaunch.facts.checkpoint import SHAPE_FIELDS, StartPoint
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.run.folder import consumed_samples


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
        meant = each(name, [found.instead] if found.instead else [])
        yield error("checkpoint-unusable", f"{shown(name, found.path)}: {found.error}", *meant, otherwise)
        return
    other = differences(found.shape, shape_of(resolved))
    if found.model_class and found.model_class != resolved.model.recipe.model_class:
        other.insert(0, f"it is a {found.model_class}, the job a {resolved.model.recipe.model_class}")
    if other:
        yield error("checkpoint-other-model", f"{shown(name, found.path)}: {'; '.join(other)}", otherwise)
        return
    masked = resolved.job.objective.objective == "mlm"
    if found.both_sides is None or found.both_sides == masked or resolved.model.architecture.kind == "bert":
        return
    trained, now = ("mlm", "clm") if found.both_sides else ("clm", "mlm")
    text = f"{shown(name, found.path)} was trained with --objective {trained}, this job has {now}"
    if name == "resume":
        yield error("checkpoint-other-objective", text, *each("objective", [trained]), otherwise)
    else:
        yield note("checkpoint-other-objective", f"{text}: its attention changes")


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
    yield from _other_objective(resolved)
    yield from _other_data(resolved)
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


def _other_objective(resolved: Resolved) -> Iterator[Finding]:
    """A run keeps its objective; how it masks may change, from where it goes on."""
    run, job = resolved.facts.run, resolved.job.objective
    before = run.values or {}
    trained = before.get("objective", job.objective)
    if trained != job.objective:
        yield error(
            "run-of-other-objective",
            f"{shown('objective', job.objective)}: the run in {run.folder} was trained with {trained}",
            *each("objective", [trained]),
            _elsewhere(resolved),
        )
        return
    changed = [name for name in MASKING if name in before and before[name] != resolved.job.get(name)]
    if job.objective == "mlm" and changed:
        was = ", ".join(f"{flag(name)} {before[name]}" for name in changed)
        yield warning(
            "run-of-other-objective",
            f"the run in {run.folder} was trained with {was}; from step {run.next_step} on samples are masked "
            "otherwise",
            fix(**{name: before[name] for name in changed}),
            _elsewhere(resolved),
        )


def _other_data(resolved: Resolved) -> Iterator[Finding]:
    """What a changed blend means for a run that goes on: its place in the order of samples stays.

    Megatron builds the order anew and begins it at the number of samples consumed
    (`MegatronPretrainingSampler`), as if all before had been read in the new order.
    """
    run = resolved.facts.run
    sizes = {f.prefix: float(f.split_tokens[0]) for f in resolved.facts.data}
    before, now = _by_prefix(run.blend or (), sizes), _by_prefix(resolved.blend, sizes)
    if not before or not now or before == now:
        return
    seen = consumed_samples(Path(run.last_checkpoint or ""))
    if seen < 0:
        batch = (run.values or {}).get("global_batch_size") or resolved.job.batch.global_batch_size
        seen = run.next_step * int(batch)
    sentences = []
    for prefix in dict.fromkeys([*before, *now]):
        had, has = before.get(prefix), now.get(prefix)
        if prefix not in before or prefix not in now:
            sentences.append(f"{prefix} is {'no longer read' if prefix in before else 'new'}")
        elif had is not None and has is not None and abs(has - had) * seen >= 1:
            what = "passed over unread" if has > had else "read again"
            sentences.append(f"about {abs(has - had) * seen:,.0f} samples of {prefix} are {what}")
    if sentences:
        yield warning(
            "run-of-other-data",
            f"the run in {run.folder} was trained on other data; from step {run.next_step} on it reads the new "
            f"order of samples from number {seen:,} on: {'; '.join(sentences)}",
            _elsewhere(resolved),
        )


def _by_prefix(
    pairs: tuple[tuple[float | None, str], ...], sizes: dict[str, float]
) -> dict[str, float | None]:
    """The share of each prefix, by size where there are no weights; None where that is not known."""
    weights = {prefix: sizes.get(prefix) if weight is None else weight for weight, prefix in pairs}
    known = [w for w in weights.values() if w is not None]
    total = sum(known) if len(known) == len(weights) else 0.0
    return {prefix: w / total if w is not None and total else None for prefix, w in weights.items()}
