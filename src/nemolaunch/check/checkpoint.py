"""The checkpoints that training starts from, and the run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from nemolaunch.catalogue import Architecture
from nemolaunch.check.same_model import Pairs, base_of, other_than_checkpoint, recipes_of, sentences
from nemolaunch.check.support import each, error, fix, flag, note, shown, warning
from nemolaunch.facts.checkpoint import SHAPE_FIELDS, StartPoint
from nemolaunch.families.computed_fields import PARAMETERS
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.backend import BRIDGE, NEMO2, trains_with_bridge

MOST_RECIPES = 2


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
    if (found.backend == BRIDGE) != trains_with_bridge(resolved.job):
        yield _of_other_backend(resolved, found, name, otherwise)
        return
    other = differences(found.shape, shape_of(resolved))
    if (
        found.backend == NEMO2
        and found.model_class
        and found.model_class != resolved.model.recipe.model_class
    ):
        other.insert(
            0, f"its model class is {found.model_class}, the job's is {resolved.model.recipe.model_class}"
        )
    pairs = {} if other else other_than_checkpoint(found, resolved)
    missing = {field: pair for field, pair in pairs.items() if field in PARAMETERS or field in SHAPE_FIELDS}
    if missing:
        other.append(sentences(missing))
    if other or pairs:
        fits = each("model_name", recipes_of(found)[:MOST_RECIPES])
        if other:
            text = f"{shown(name, found.path)}: {'; '.join(other)}"
            yield error("checkpoint-other-model", text, *fits, otherwise)
        else:
            yield _other_function(found, name, pairs, *fits, otherwise)
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


def _of_other_backend(resolved: Resolved, found: StartPoint, name: str, otherwise: Fix) -> Finding:
    """Say that the backend cannot read a checkpoint; only its weights can be converted."""
    other = NEMO2 if found.backend == BRIDGE else BRIDGE
    how = (
        f": it was trained with {flag('backend')} {found.backend}. `nemolaunch convert {found.path} DIR --to {other}` "
        "takes its optimizer along"
        if name == "resume"
        else f". Convert it: `nemolaunch convert {found.path} DIR --to {other}`"
    )
    return error(
        "checkpoint-of-other-backend",
        f"{shown(name, found.path)}: {flag('backend')} {other} cannot read this checkpoint{how}",
        fix(backend=found.backend),
        otherwise,
        about=name,
    )


def _other_function(found: StartPoint, name: str, pairs: Pairs, *fixes: Fix) -> Finding:
    return error(
        "checkpoint-other-function",
        f"{shown(name, found.path)} was trained as a model of the same shape that computes something else: "
        f"{sentences(pairs)}. To keep what it has learnt, {_description(found, pairs)}; to change it on purpose, as "
        "for a longer context, use --force checkpoint-other-function",
        *fixes,
        about="model_name",
    )


def _description(found: StartPoint, pairs: Pairs) -> str:
    """Say how a job describes the checkpoint's model: in a YAML file, and other fields with `--set`."""
    own = {field.name for field in dataclasses.fields(Architecture)}
    lines = [f"{field}: {_yaml(had)}" for field, (had, _) in pairs.items() if field in own]
    words = [f"model.config.{field}={_yaml(had)}" for field, (had, _) in pairs.items() if field not in own]
    base = base_of(found)
    parts = []
    if lines:
        where = f"a YAML file for {flag('model_name')}" + (f" with base: {base}" if base else "")
        parts.append(f"say {', '.join(lines)} in {where}")
    if words:
        parts.append("use " + " ".join(shown("set", word) for word in words))
    return " and ".join(parts)


def _yaml(value: Any) -> Any:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


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
    """Check the folder itself, and that something is left to train of an earlier run in it."""
    run, job = resolved.facts.run, resolved.job
    if run.error:
        yield error("run-folder", f"the run folder is not writable: {run.error}", *_other_folder(resolved))
    if run.last_checkpoint is None or job.checkpoint.resume == "never":
        return
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
