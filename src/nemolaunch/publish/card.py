"""The model card: architecture, training, data and results, from the model folder and its run.

Metadata: https://huggingface.co/docs/hub/model-cards. The card names files, but no folders of this machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nemolaunch.checkpoint.convert import report
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.data.validation_sets import loss_key, set_names
from nemolaunch.errors import NemolaunchError
from nemolaunch.evaluation import harness
from nemolaunch.observe.history import History, evaluation_figures
from nemolaunch.planning import Plan
from nemolaunch.run.folder import read_json, step_of
from nemolaunch.system import json_files
from nemolaunch.system.control_characters import in_markdown


def checkpoint_of(folder: Path) -> Path | None:
    """Return the checkpoint that a model folder was converted from, according to the report beside it."""
    source = (read_json(_beside(folder, report.ENDING)) or {}).get("source")
    return Path(source) if source else None


def benchmarks_of(folder: Path, checkpoint: Path | None) -> dict[str, float]:
    """Read the results of `nemolaunch eval lm` beside the model or its checkpoint, unless run with `--limit`."""
    for model in (folder, checkpoint.resolve() if checkpoint else None):
        found = read_json(_beside(model, harness.RESULTS)) if model else None
        if found and found.get("limit") is None:
            return evaluation_figures({"tasks": found.get("tasks") or {}})
    return {}


def _beside(folder: Path, ending: str) -> Path:
    """Return the path of a file beside a folder; also works for `.`, whose name has to be resolved."""
    return Path(os.path.abspath(folder) + ending)


def run_of(checkpoint: Path | None) -> Path | None:
    """Return the folder of the run that saved a checkpoint, None if it is not available."""
    if checkpoint is None or checkpoint.parent.name != "checkpoints":
        return None
    run = checkpoint.parent.parent
    return run if (run / "plan.json").is_file() else None


def steps_of(checkpoint: Path | None) -> int | None:
    """Return the optimizer steps at which a checkpoint was saved, None if its name does not say."""
    if checkpoint is None:
        return None
    found = step_of(checkpoint.resolve() if checkpoint.exists() else checkpoint)
    return found + 1 if found >= 0 else None


def read_config(folder: Path) -> dict[str, Any]:
    """Read the model's `config.json`.

    Raises:
        NemolaunchError: the folder is not a Hugging Face model.
    """
    try:
        content = json_files.read_json(folder / "config.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NemolaunchError(
            f"{folder} is not a Hugging Face model: it has no config.json. Convert a checkpoint first: "
            "`nemolaunch convert CKPT DIR --to hf`"
        ) from None
    except (OSError, ValueError) as error:
        raise NemolaunchError(f"cannot read {folder / 'config.json'}: {error}") from None
    if not isinstance(content, dict):
        raise NemolaunchError(f"{folder / 'config.json'} is not a configuration: it has to be a JSON object")
    return content


def card(
    repository: str,
    config: dict[str, Any],
    *,
    parameters: int,
    steps: int | None = None,
    history: History | None = None,
    benchmarks: Mapping[str, float] | None = None,
    licence: str | None = None,
) -> str:
    """Return the text of the model card, `README.md`.

    Args:
        parameters: number of weights.
        steps: optimizer steps of the published checkpoint.
        history: history of the run that trained it.
        benchmarks: benchmark results by name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    masked = bidirectional.family_of(config) is not None
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask" if masked else "text-generation",
        **({"license": licence} if licence else {}),
        "tags": ["nemo", str(config.get("model_type", "")), "pretraining"],
    }
    plan = history.plan if history else None
    evaluated = _evaluated(history, steps) if history else {}
    environment = Environment(
        loader=PackageLoader("nemolaunch.publish"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2").render(
        metadata=yaml.safe_dump(metadata, sort_keys=False).rstrip(),
        repository=repository,
        parameters=f"{parameters:,}",
        model_type=in_markdown(str(config.get("model_type"))),
        masked=masked,
        training=_plain(dict(_training(plan, history, steps))) if plan and history else {},
        data=_data(plan, history, steps) if plan and history else [],
        evaluated_step=evaluated.get("step", "?"),
        evaluation=_plain(_figures(evaluation_figures(evaluated))),
        benchmarks=_plain(_figures(benchmarks or {})),
        versions=_plain(_versions(history)) if history else {},
    )


def _plain(rows: Mapping[str, str]) -> dict[str, str]:
    """Return rows of a table as plain text, whatever names and logs contain."""
    return {in_markdown(str(name)): in_markdown(str(value)) for name, value in rows.items()}


def _training(plan: Plan, history: History, steps: int | None) -> Iterator[tuple[str, str]]:
    job = plan.job
    optimizer, objective = job.optimizer, job.objective
    done = steps if steps is not None else history.last_step
    yield "steps", f"{done:,}"
    yield "tokens", f"{plan.batch_sizes.samples(done) * plan.seq_length:,}"
    ramp = plan.batch_sizes.ramp
    raised = f", raised from {ramp.start:,} over the first {ramp.samples:,} sequences" if ramp else ""
    yield "batch", f"{job.batch.global_batch_size:,} sequences of {plan.seq_length:,} tokens{raised}"
    yield (
        "optimizer",
        f"{optimizer.optimizer}, weight decay {optimizer.weight_decay:g}, "
        f"gradients clipped at {optimizer.clip_grad:g}",
    )
    warmup = f"{optimizer.warmup_steps:,} warm-up steps"
    yield "learning rate", f"{optimizer.lr:g}, {warmup}, cosine decay to {optimizer.min_lr:g}"
    yield "precision", "fp8" if job.batch.fp8 else job.batch.precision
    yield "trained on", _hardware(plan, history)
    masked = objective.objective == "mlm"
    if masked:
        yield (
            "objective",
            f"masked language modelling, {objective.mlm_probability:.0%} of tokens, {objective.mlm_replacement}",
        )
    sets = [(loss_key(name), f"validation loss, {name}") for name in set_names(history.series)]
    for key, name in (("loss", "training loss"), ("val_loss", "validation loss"), *sets):
        value = _at(history, key, done)
        if history.ends_not_finite(key, done):
            yield name, "not finite"
        elif value is not None:
            perplexity = f" (perplexity {math.exp(value):.2f})" if value < 50 and not masked else ""
            yield name, f"{value:.4f}{perplexity}"
    right = _at(history, "val_masked_accuracy", done)
    if right is not None:
        yield "masked-token accuracy", f"{right:.2%}"


def _hardware(plan: Plan, history: History) -> str:
    what = history.environment.get("gpu") or ("GPU" if plan.device == "gpu" else "CPU process")
    layout = [f"{name} parallel {size}" for name, size in plan.model_parallel_sizes.items()]
    return ", ".join([f"{plan.world_size} × {what}", f"data parallel {plan.data_parallel_size}", *layout])


def _at(history: History, key: str, step: int) -> float | None:
    """Return the latest value of a series up to a step."""
    series = history.series.get(key)
    values = [v for s, v in zip(series.steps, series.values, strict=True) if s <= step] if series else []
    return values[-1] if values else None


def _data(plan: Plan, history: History, steps: int | None) -> list[tuple[str, str, str]]:
    """Return (source, weight, samples seen) for each prefix."""
    done = plan.batch_sizes.samples(steps if steps is not None else history.last_step)
    seen = [done] if len(plan.blend) == 1 else history.samples_by_prefix
    return [
        (
            in_markdown(Path(prefix).name.removesuffix("_text_document")),
            "all" if weight is None else f"{weight:g}",
            f"{seen[number]:,}" if number < len(seen) else "",
        )
        for number, (weight, prefix) in enumerate(plan.blend)
    ]


def _evaluated(history: History, steps: int | None) -> dict[str, Any]:
    """Return the evaluation of the published step, else the latest; empty if there is none."""
    rows = [row for row in history.evaluations if steps is None or row.get("step") == steps]
    return (rows or history.evaluations or [{}])[-1]


def _figures(figures: Mapping[str, float]) -> dict[str, str]:
    """Format results for the card, with readable names."""
    return {
        name.removeprefix("eval_").replace("_", " ") if name.startswith("eval_") else name: f"{value:.4g}"
        for name, value in figures.items()
    }


def _versions(history: History) -> dict[str, str]:
    known = sorted(history.environment.items())
    return {name: value for name, value in known if name not in ("host", "gpu")}
