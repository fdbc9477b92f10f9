"""The values of the sections about one run; `templates/sections.html` turns them into HTML."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.job import Job
from nemolaunch.job.settings import spread
from nemolaunch.observe.goodput import goodput
from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir, step_of
from nemolaunch.system.json_files import read_json


def sections(history: History, saved: list[SavedCheckpoint]) -> dict[str, Any]:
    """Return the values of each section by its id, in page order; empty where the run has no data for it."""
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
    """Return how to colour an event: `bad`, `warn` or `plain`."""
    if kind in ("failed", "not finite", "no progress"):
        return "bad"
    return "plain" if kind in ("restart", "left", "stopped", "migrated") else "warn"


@dataclass(frozen=True, kw_only=True)
class SavedCheckpoint:
    """A complete checkpoint of the run; `last` marks the one that a resumed run starts from."""

    path: Path
    step: int
    size_bytes: int
    time: float
    last: bool


def saved_checkpoints(run: RunDir) -> list[SavedCheckpoint]:
    """Return the complete checkpoints by step; NeMo's `-last` is a link to one of them, or one of its own."""
    last = run.last_checkpoint()
    newest = last.resolve() if last else None
    return [
        SavedCheckpoint(
            path=path,
            step=step_of(path) + 1,
            size_bytes=_folder_size(path),
            time=path.stat().st_mtime,
            last=path.resolve() == newest,
        )
        for path in run.complete_checkpoints()
    ]


def _folder_size(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names
    )


def _at(history: History, key: str, step: int) -> str:
    """Format a metric at a step, or its latest value before it."""
    series = history.series.get(key)
    value = series.at(step) if series else None
    return "not finite" if history.ends_not_finite(key, step) else "–" if value is None else f"{value:.3f}"


def _evaluation(history: History) -> dict[str, Any] | None:
    """Return the figures of the evaluated checkpoints and the conditions of the evaluation."""
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
        "perplexity_of": _with_all(of.get("ppl_of"), ("data", "tokens", "context_length", "stride")),
        "masked_of": _with_all(of.get("mlm_of"), ("data", "masked_tokens", "context_length")),
    }


def _with_all(found: dict[str, Any] | None, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Return what an evaluation was of, unless a damaged file lacks a part."""
    return found if found and all(key in found for key in keys) else None


def _samples(history: History) -> dict[str, list[tuple[int, str]]]:
    """Return (step, generated text) by prompt."""
    by_prompt: dict[str, list[tuple[int, str]]] = {}
    for row in history.evaluations:
        samples = row.get("samples", [])
        for sample in samples if isinstance(samples, list) else ():
            if isinstance(sample, dict) and isinstance(sample.get("prompt"), str) and "text" in sample:
                by_prompt.setdefault(sample["prompt"], []).append((row["step"], sample["text"]))
    return by_prompt


def _time(history: History) -> dict[str, Any] | None:
    """Return where the time went and the distribution of step times."""
    spent = goodput(history)
    return {"spent": spent.shares(), "wall_s": spent.wall_s, "steps": step_times(history)} if spent else None


def step_times(history: History) -> list[tuple[str, float]]:
    """Return (statistic, seconds) of the step times and of the wait for data."""
    rows = history.series.get("step_time_s")
    if not rows:
        return []
    ordered = sorted(rows.sample())
    quantiles = (("median", 0.5), ("95th percentile", 0.95), ("99th percentile", 0.99))
    found = [(name, ordered[round((len(ordered) - 1) * share)]) for name, share in quantiles]
    found.append(("maximum", max(history.series.get("step_time_max_s", rows).values)))
    if "data_wait_s" in history.series:
        waits = history.series["data_wait_s"].values
        found.append(("mean wait for data", statistics.fmean(waits)))
    return found


def traces(run: RunDir) -> list[Path]:
    """Return the files that profilers wrote, the latest last."""
    found = [p for p in run.traces.rglob("*") if p.suffix in (".json", ".gz", ".nsys-rep") and p.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One prefix of a blend: its requested share, and its share of the samples consumed so far."""

    prefix: str
    requested: float | None
    samples: int | None
    actual: float | None


def mixture(history: History) -> list[MixturePart]:
    """Return the data mixture as requested and as consumed."""
    if not history.plan:
        return []
    blend, seen = history.plan.blend, history.samples_by_prefix
    if len(blend) == 1:
        tokens = history.last("tokens")
        samples = None if tokens is None else round(tokens / history.plan.seq_length)
        actual = 1.0 if samples else None
        return [MixturePart(prefix=blend[0][1], requested=1.0, samples=samples, actual=actual)]
    total = sum(weight or 0.0 for weight, _ in blend)
    known = len(seen) == len(blend) and sum(seen) > 0
    return [
        MixturePart(
            prefix=prefix,
            requested=weight / total if weight is not None and total else None,
            samples=seen[i] if known else None,
            actual=seen[i] / sum(seen) if known else None,
        )
        for i, (weight, prefix) in enumerate(blend)
    ]


def _plan(plan: Plan) -> dict[str, Any]:
    return {"about": _about(plan), "left_out": plan.left_out, "flags": _flags(plan)}


def _about(plan: Plan) -> dict[str, str]:
    """Summarise the plan: model, device, parallelism, batch, initial weights and folder."""
    job = plan.job
    layout = [f"data {plan.data_parallel_size}"]
    layout += [f"{label} {size}" for label, size in plan.model_parallel_sizes.items()]
    count = plan.world_size
    device = f"{count} GPU{'s' if count != 1 else ''}"
    if plan.device == "cpu":
        device = f"{count} CPU process{'es' if count != 1 else ''} (rehearsal)"
    batch = f"{job.batch.global_batch_size} sequences of {plan.seq_length:,} tokens"
    ramp = plan.batch_sizes.ramp
    raised = f", raised from {ramp.start:,} over the first {ramp.samples:,} sequences" if ramp else ""
    return {
        "Model": f"{plan.model} ({plan.model_source}), NeMo recipe {plan.recipe}",
        "Trained on": device,
        "Parallelism": ", ".join(layout),
        "Batch": f"{batch} = {plan.tokens_per_step:,} tokens{raised}",
        "Initial weights": job.model.nemo_model or "random",
        "Run folder": plan.folder,
    }


def _flags(plan: Plan) -> list[tuple[str, str, str]]:
    """Return (flag, value, origin) of every value that was given or computed."""
    defaults = Job().values()
    return [
        (flag_name(name), shown_value(name, value), plan.origins.get(name.partition(" ")[0], "given"))
        for name, value in spread(plan.job.values()).items()
        if value != defaults.get(name) or name in plan.origins
    ]


def flag_name(name: str) -> str:
    """Return the flag of a field: `max_steps` → `--max-steps`, `set log.name` → `--set log.name`."""
    name, space, path = name.partition(" ")
    return "--" + name.replace("_", "-") + space + path


def shown_value(name: str, value: Any) -> str:
    """Format a flag's value for a page that others read: of `--env`, only the names."""
    if name == "env":
        value = tuple(f"{word.partition('=')[0]}=…" if "=" in word else word for word in value or ())
    return flag_value(value)


def flag_value(value: Any) -> str:
    """Format a flag's value as it is typed; `not given` for None."""
    if value is None:
        return "not given"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value)


def _findings(history: History) -> list[str]:
    """Read the findings from the time of planning."""
    try:
        saved = read_json(history.run.plan).get("findings", [])
    except (OSError, ValueError):
        return []
    return [str(finding) for finding in saved]
