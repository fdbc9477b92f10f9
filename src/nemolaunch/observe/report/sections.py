"""The plain values of the sections about one run; `templates/sections.html` turns them into HTML."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.job import Job
from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir, step_of, unfinished


def sections(history: History, saved: list[SavedCheckpoint]) -> dict[str, Any]:
    """Values by the section's id, in the page's order; empty where the run has nothing to say."""
    return {
        "events": history.marks,
        "checkpoints": [
            (checkpoint, *(_at(history, key, checkpoint.step) for key in ("loss", "val_loss")))
            for checkpoint in saved
        ],
        "evaluation": _evaluation(history),
        "samples": _samples(history),
        "time": _time(history),
        "traces": [(path, path.stat().st_size) for path in traces(history.run)],
        "data": mixture(history),
        "plan": _plan(history.plan) if history.plan else None,
        "findings": _findings(history),
        "environment": history.environment,
    }


def severity(kind: str) -> str:
    """`bad`, `warn` or `plain`: how an event is coloured."""
    if kind in ("failed", "not finite", "no progress"):
        return "bad"
    return "plain" if kind in ("restart", "left") else "warn"


@dataclass(frozen=True, kw_only=True)
class SavedCheckpoint:
    """A complete checkpoint of the run; `last` marks the one a resumed run starts from."""

    path: Path
    step: int
    size_bytes: int
    time: float
    last: bool


def saved_checkpoints(run: RunDir) -> list[SavedCheckpoint]:
    """Complete checkpoints by step; NeMo's `-last` is a mark on one of them, or one of its own."""
    if not run.checkpoints.is_dir():
        return []
    last = run.last_checkpoint()
    newest = last.resolve() if last else None
    found = [
        SavedCheckpoint(
            path=path,
            step=step_of(path) + 1,
            size_bytes=_folder_size(path),
            time=path.stat().st_mtime,
            last=path.resolve() == newest,
        )
        for path in run.checkpoints.iterdir()
        if not path.is_symlink() and (path / "weights").is_dir() and not unfinished(path)
    ]
    return sorted(found, key=lambda c: (c.step, c.path.name))


def _folder_size(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names
    )


def _at(history: History, key: str, step: int) -> str:
    """A figure at a step, or the last known before it."""
    series = history.series.get(key)
    value = series.at(step) if series else None
    return "not finite" if history.lost(key, step) else "–" if value is None else f"{value:.3f}"


def _evaluation(history: History) -> dict[str, Any] | None:
    """Figures of the checkpoints that were evaluated, and the conditions they hold under."""
    figures = [(row["step"], evaluation_figures(row)) for row in history.evaluations]
    names = list(dict.fromkeys(name for _, found in figures for name in found))
    if not names:
        return None
    of: dict[str, Any] = next(
        (row for row in reversed(history.evaluations) if row.get("ppl_of") or row.get("mlm_of")), {}
    )
    return {
        "names": [name.removeprefix("eval_").replace("_", " ") for name in names],
        "rows": [(step, [found.get(name) for name in names]) for step, found in figures],
        "perplexity_of": of.get("ppl_of"),
        "masked_of": of.get("mlm_of"),
    }


def _samples(history: History) -> dict[str, list[tuple[int, str]]]:
    """(step, text) of what the model wrote after the same prompts, over time."""
    by_prompt: dict[str, list[tuple[int, str]]] = {}
    for row in history.evaluations:
        for sample in row.get("samples", []):
            by_prompt.setdefault(sample["prompt"], []).append((row["step"], sample["text"]))
    return by_prompt


def _time(history: History) -> dict[str, Any] | None:
    """Where the time went, and how even the steps were."""
    spent = time_spent(history)
    total = sum(seconds for _, seconds in spent) or 1.0
    shares = [(label, seconds, seconds / total) for label, seconds in spent]
    return {"spent": shares, "steps": step_times(history)} if spent else None


def time_spent(history: History) -> list[tuple[str, float]]:
    """(what, seconds) of the time in training, longest first: steps, validation, saving, and the rest."""
    rows = history.series.get("step_time_s")
    if not rows:
        return []
    before, steps = 0, 0.0
    for step, seconds in rows:
        steps += seconds * (step - before)
        before = step
    parts = [("training steps", steps)]
    for key, label in (("validation_s", "validation"), ("checkpoint_s", "saving checkpoints")):
        if key in history.series:
            parts.append((label, sum(history.series[key].values)))
    rest = history.active_s - sum(seconds for _, seconds in parts)
    if rest > 0:
        parts.append(("other, and steps done again", rest))
    return sorted(parts, key=lambda part: -part[1])


def step_times(history: History) -> list[tuple[str, float]]:
    """(what, seconds) of the distribution of step times and of the wait for data."""
    rows = history.series.get("step_time_s")
    if not rows:
        return []
    ordered = sorted(rows.sample())
    quantiles = (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    found = [(name, ordered[round((len(ordered) - 1) * share)]) for name, share in quantiles]
    found.append(("longest", max(history.series.get("step_time_max_s", rows).values)))
    if "data_wait_s" in history.series:
        waits = history.series["data_wait_s"].values
        found.append(("of the mean, waiting for data", statistics.fmean(waits)))
    return found


def traces(run: RunDir) -> list[Path]:
    """What profilers wrote, the newest last."""
    found = [p for p in run.traces.rglob("*") if p.suffix in (".json", ".gz", ".nsys-rep") and p.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """One prefix of a blend: the share asked for, and the share of the samples seen so far that were its."""

    prefix: str
    asked: float | None
    samples: int | None
    achieved: float | None


def mixture(history: History) -> list[Ingredient]:
    """The data, with what was asked for and what was seen."""
    if not history.plan:
        return []
    blend, seen = history.plan.blend, history.samples_by_prefix
    if len(blend) == 1:
        tokens = history.last("tokens")
        samples = None if tokens is None else round(tokens / history.plan.seq_length)
        achieved = 1.0 if samples else None
        return [Ingredient(prefix=blend[0][1], asked=1.0, samples=samples, achieved=achieved)]
    total = sum(weight or 0.0 for weight, _ in blend)
    known = len(seen) == len(blend) and sum(seen) > 0
    return [
        Ingredient(
            prefix=prefix,
            asked=weight / total if weight is not None and total else None,
            samples=seen[i] if known else None,
            achieved=seen[i] / sum(seen) if known else None,
        )
        for i, (weight, prefix) in enumerate(blend)
    ]


def _plan(plan: Plan) -> dict[str, Any]:
    return {"about": _about(plan), "left_out": plan.left_out, "flags": _flags(plan)}


def _about(plan: Plan) -> dict[str, str]:
    """The plan in a few lines: model, layout, batch, data, device."""
    job = plan.job
    sizes = {
        "tensor": job.parallelism.tensor_model_parallel_size,
        "pipeline": job.parallelism.pipeline_model_parallel_size,
        "context": job.parallelism.context_parallel_size,
        "expert": job.parallelism.expert_model_parallel_size,
    }
    layout = [f"data {plan.data_parallel_size}"]
    layout += [f"{label} {size}" for label, size in sizes.items() if size > 1]
    device = "CPU process(es), a rehearsal" if plan.device == "cpu" else "GPU(s)"
    batch = f"{job.batch.global_batch_size} sequences of {plan.seq_length:,} tokens"
    return {
        "Model": f"{plan.model} ({plan.model_source}), NeMo recipe {plan.recipe}",
        "Trained on": f"{plan.world_size} {device}",
        "Parallel sizes": ", ".join(layout),
        "Batch": f"{batch} = {plan.tokens_per_step:,} tokens",
        "Starting weights": job.model.nemo_model or "random",
        "Run folder": plan.folder,
    }


def _flags(plan: Plan) -> list[tuple[str, str, str]]:
    """(flag, value, where it came from) of everything that is not a plain default."""
    defaults = Job().values()
    return [
        (flag_name(name), flag_value(value), plan.origins.get(name, "given"))
        for name, value in plan.job.values().items()
        if value != defaults.get(name) or name in plan.origins
    ]


def flag_name(name: str) -> str:
    """`max_steps` → `--max-steps`."""
    return "--" + name.replace("_", "-")


def flag_value(value: Any) -> str:
    """A flag's value as one would type it; `not given` for none."""
    if value is None:
        return "not given"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _findings(history: History) -> list[str]:
    """What the check said when the run was planned."""
    try:
        saved = json.loads(history.run.plan.read_text(encoding="utf-8")).get("findings", [])
    except (OSError, ValueError):
        return []
    return [str(finding) for finding in saved]
