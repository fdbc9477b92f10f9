"""The checkpoints that training starts from, and whether an earlier run in the run folder matches this job."""

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
    """Check the checkpoints that `--nemo-model` and `--resume` name."""
    facts, job = resolved.facts, resolved.job
    if facts.weights is not None:
        yield from _named(resolved, facts.weights, "nemo_model", fix(nemo_model=None))
    if facts.resume is not None:
        yield from _named(resolved, facts.resume, "resume", fix(resume="auto"))
    if job.model.nemo_model and facts.run.last_checkpoint and job.checkpoint.resume == "auto":
        yield note(
            "weights-not-used",
            f"{flag('nemo_model')} is not used: the run resumes from {facts.run.last_checkpoint}",
        )


def _named(resolved: Resolved, found: StartPoint, name: str, otherwise: Fix) -> Iterator[Finding]:
    if found.error:
        meant = each(name, [found.instead] if found.instead else [])
        yield error("checkpoint-unusable", f"{shown(name, found.path)}: {found.error}", *meant, otherwise)
        return
    other = differences(found.shape, shape_of(resolved))
    if found.model_class and found.model_class != resolved.model.recipe.model_class:
        other.insert(
            0, f"its model class is {found.model_class}, the job's is {resolved.model.recipe.model_class}"
        )
    if other:
        yield error("checkpoint-other-model", f"{shown(name, found.path)}: {'; '.join(other)}", otherwise)
        return
    masked = resolved.job.objective.objective == "mlm"
    if found.both_sides is None or found.both_sides == masked or resolved.model.architecture.kind == "bert":
        return
    trained, now = ("mlm", "clm") if found.both_sides else ("clm", "mlm")
    text = f"{shown(name, found.path)} was trained with --objective {trained}, but this job has {now}"
    if name == "resume":
        yield error("checkpoint-other-objective", text, *each("objective", [trained]), otherwise)
    else:
        yield note("checkpoint-other-objective", f"{text}, which changes the attention mask")


def shape_of(resolved: Resolved) -> dict[str, Any]:
    """Return the job's values of the fields that must match a checkpoint."""
    a = resolved.model.architecture
    return {name: getattr(a, name) for name in SHAPE_FIELDS}


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Describe the differences in fields that are known on both sides."""
    return [
        f"its {name} is {theirs[name]}, the job's is {ours[name]}"
        for name in SHAPE_FIELDS
        if theirs.get(name) is not None and ours.get(name) is not None and theirs[name] != ours[name]
    ]


def run_folder(resolved: Resolved) -> Iterator[Finding]:
    """Check the folder itself, and that the job can continue an earlier run in it."""
    run, job = resolved.facts.run, resolved.job
    if run.error:
        yield error("run-folder", f"the run folder is not writable: {run.error}", *_other_folder(resolved))
    if run.last_checkpoint is None or job.checkpoint.resume == "never":
        return
    other = differences(run.architecture or {}, shape_of(resolved))
    if other:
        yield error(
            "run-of-other-model",
            f"{run.folder} contains a run of another model: {'; '.join(other)}",
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
            f"{shown('max_steps', steps)} leaves nothing to train: the run in {run.folder} is already at step "
            f"{run.next_step}",
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


# Saved optimizer state cannot be loaded under a different value of these fields: the sharded layouts differ
OPTIMIZER_LAYOUT = ("disable_dist_optim", "expert_model_parallel_size", "optimizer")


def _optimizer_state(resolved: Resolved) -> Iterator[Finding]:
    before = resolved.facts.run.values or {}
    for name in OPTIMIZER_LAYOUT:
        if name in before and before[name] != resolved.job.get(name):
            yield error(
                "run-of-other-optimizer-layout",
                f"the run in {resolved.facts.run.folder} was saved with {shown(name, before[name])}, so its optimizer "
                f"state cannot be loaded with {resolved.job.get(name)}",
                *each(name, [before[name]]),
                _elsewhere(resolved),
            )


def _other_objective(resolved: Resolved) -> Iterator[Finding]:
    """Check that the objective stays the same; masking settings may change when a run resumes."""
    run, job = resolved.facts.run, resolved.job.objective
    before = run.values or {}
    trained = before.get("objective", job.objective)
    if trained != job.objective:
        yield error(
            "run-of-other-objective",
            f"{shown('objective', job.objective)} differs from the run in {run.folder}, which was trained with "
            f"{trained}",
            *each("objective", [trained]),
            _elsewhere(resolved),
        )
        return
    changed = [name for name in MASKING if name in before and before[name] != resolved.job.get(name)]
    if job.objective == "mlm" and changed:
        was = ", ".join(f"{flag(name)} {before[name]}" for name in changed)
        yield warning(
            "run-of-other-objective",
            f"the run in {run.folder} was trained with {was}; from step {run.next_step} on, samples are masked "
            "differently",
            fix(**{name: before[name] for name in changed}),
            _elsewhere(resolved),
        )


def _other_data(resolved: Resolved) -> Iterator[Finding]:
    """Report what a changed blend means for a resumed run, which keeps its position in the order of samples.

    Megatron rebuilds the order and starts at the number of consumed samples (`MegatronPretrainingSampler`), as if
    everything before had been read in the new order.
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
            what = "skipped" if has > had else "read again"
            sentences.append(f"about {abs(has - had) * seen:,.0f} samples of {prefix} are {what}")
    if sentences:
        yield warning(
            "run-of-other-data",
            f"the run in {run.folder} was trained on different data; it resumes at step {run.next_step} with sample "
            f"{seen:,} of the new order: {'; '.join(sentences)}",
            _elsewhere(resolved),
        )


def _by_prefix(
    pairs: tuple[tuple[float | None, str], ...], sizes: dict[str, float]
) -> dict[str, float | None]:
    """Return the share of each prefix, by size where there are no weights; None where the size is unknown."""
    weights = {prefix: sizes.get(prefix) if weight is None else weight for weight, prefix in pairs}
    known = [w for w in weights.values() if w is not None]
    total = sum(known) if len(known) == len(weights) else 0.0
    return {prefix: w / total if w is not None and total else None for prefix, w in weights.items()}
