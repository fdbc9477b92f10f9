"""`nemolaunch inspect checkpoint`: show what a checkpoint is, compare two, or check if a job could load one."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.cli.views.units import count, gigabytes
from nemolaunch.errors import UsageError
from nemolaunch.system.quantities import counted

if TYPE_CHECKING:
    from nemolaunch.checkpoint.convert.compare import Differences
    from nemolaunch.checkpoint.convert.summary import Summary

SHOWN = 8


def add(kinds: Any) -> None:
    """Add `inspect checkpoint` to the kinds of things that can be inspected."""
    p = kinds.add_parser(
        "checkpoint",
        help="show what a checkpoint is, compare two, or check whether a job could load one",
        description="Show a checkpoint's format, model, size, step, layout, and whether training can resume from it. "
        "With a second checkpoint, compare the two tensor by tensor; the exit code is 1 if they differ. With --for, "
        "check whether a job could load it; the exit code is 1 if not.",
        example="nemolaunch inspect checkpoint runs/pretraining/checkpoints/NAME-last --for job.yaml",
    )
    flag = p.add_argument
    flag(
        "checkpoint",
        metavar="CKPT",
        type=Path,
        help="checkpoint in any format, or a run folder for its newest one",
    )
    flag("other", metavar="OTHER", nargs="?", type=Path, help="checkpoint to compare it with")
    flag(
        "--for",
        dest="job",
        metavar="FILE",
        type=Path,
        help="the YAML file of a job, or the plan.json of a run; for checkpoints of NeMo 2 and Megatron-Bridge only",
    )
    flag("--json", action="store_true", help="print one JSON object instead")
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Inspect, and return 1 if two checkpoints differ or the job could not load one, else 0."""
    if options.other and options.job:
        raise UsageError("use either a second checkpoint or --for, not both")
    if options.other:
        return _compare(options)
    from nemolaunch.checkpoint.convert.summary import summarise

    found = summarise(options.checkpoint)
    faults = _faults(found, options.job) if options.job else None
    if options.json:
        content = {**dataclasses.asdict(found), "resumable": found.resumable}
        content.pop("config")
        print(json.dumps(content if faults is None else {**content, "would_load": faults}, indent=2))
    else:
        _print(found)
        if faults is not None:
            for part, lines in faults.items():
                print(f"  {'loads ' + part:18} {'no: ' + '; '.join(lines) if lines else 'yes'}")
    return 1 if faults and faults["weights"] else 0


def _print(found: Summary) -> None:
    rows: dict[str, Any] = {
        "format": found.format,
        "model": found.model,
        "parameters": f"{found.parameters:,} ({count(found.parameters)}) in {found.tensors:,} tensors",
        "dtypes": ", ".join(
            f"{dtype} {_share(n, found.parameters)}".strip() for dtype, n in found.dtypes.items()
        ),
        "size": f"{gigabytes(found.bytes)} without training state",
        "step": f"{found.step:,}" if found.step is not None else None,
        "seen": _seen(found),
        "saved by": _layout(found),
        "optimizer": _optimizer(found),
        "written with": ", ".join(f"{name} {version}" for name, version in found.versions.items()),
    }
    print(found.path)
    for name, value in rows.items():
        if value:
            print(f"  {name:18} {value}")


def _share(part: int, whole: int) -> str:
    return "" if part == whole else f"{part / max(whole, 1):.1%}"


def _seen(found: Summary) -> str | None:
    if found.samples is None:
        return None
    return f"{found.samples:,} samples" + (f", {found.tokens:,} tokens" if found.tokens else "")


def _layout(found: Summary) -> str | None:
    if found.processes is None:
        return None
    sizes = ", ".join(f"{name} {size}" for name, size in found.layout.items() if size > 1)
    return f"{counted(found.processes, 'process', 'processes')}{', ' + sizes if sizes else ''}"


def _optimizer(found: Summary) -> str:
    if not found.optimizer:
        none = "none: a job can start from the weights, but not resume training"
        return none if found.format in ("nemo2", "bridge", "megatron-lm") else ""
    if not found.resumable:
        return "present, but there is no step: the checkpoint is not from a training"
    from nemolaunch.checkpoint.convert.summary import RESHARDABLE

    layout = found.optimizer_layout
    other = "any layout" if layout in RESHARDABLE or not layout else "the same TP and PP only"
    return f"present: training can resume, with {other}"


def _faults(found: Summary, job: Path) -> dict[str, list[str]]:
    """Return why the job could not load the weights, and why not the optimizer state."""
    if found.format not in ("nemo2", "bridge", "megatron-lm"):
        raise UsageError(
            f"{found.path} is in the format {found.format}, but a job can load only checkpoints of NeMo 2 and "
            "Megatron-Bridge"
        )
    from nemolaunch.checkpoint.convert.summary import RESHARDABLE
    from nemolaunch.planning import Plan, make_plan

    if job.suffix == ".json":
        values, plan = Plan.load(job).job.values(), None
    else:
        from nemolaunch.cli.parsing.flags import job_from

        plan = make_plan(job_from({"resume": found.path}, job))
        values = plan.job.values()
    weights = [] if plan is None else [f.message for f in plan.findings if f.code.startswith("checkpoint-")]
    if plan is None:
        weights = _other_shape(found, Plan.load(job))
    optimizer = [] if found.resumable else ["the checkpoint has none"]
    if found.resumable and found.optimizer_layout and found.optimizer_layout not in RESHARDABLE:
        for name, short in (("tensor_model_parallel_size", "TP"), ("pipeline_model_parallel_size", "PP")):
            before, now = found.layout.get(short, 1), int(values.get(name) or 1)
            if before != now:
                optimizer.append(
                    f"it was saved with {short} {before}, but the job has {now}, and it cannot be resharded"
                )
    before, now = found.layout.get("EP", 1), int(values.get("expert_model_parallel_size") or 1)
    if found.resumable and before != now:
        optimizer.append(f"it was saved with EP {before}, but the job has {now}")
    return {"weights": weights, "optimizer": optimizer}


def _other_shape(found: Summary, plan: Any) -> list[str]:
    from nemolaunch.facts.checkpoint import SHAPE_FIELDS

    wrong = []
    for name in SHAPE_FIELDS:
        theirs, ours = found.config.get(name), plan.architecture.get(name)
        if theirs is not None and ours is not None and theirs != ours:
            wrong.append(f"its {name} is {theirs}, the job's is {ours}")
    return wrong


def _compare(options: argparse.Namespace) -> int:
    from nemolaunch.checkpoint.convert.compare import CheckpointPair
    from nemolaunch.cli.views.progress import byte_bar

    pair = CheckpointPair(options.checkpoint, options.other)
    try:
        with byte_bar("comparing", pair.nbytes) as advance:
            found = pair.differences(advance)
    finally:
        pair.close()
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        _print_differences(found)
    return 1 if found.any else 0


def _print_differences(found: Differences) -> None:
    print(f"{found.equal:,} tensors are identical")
    for title, names in (
        ("only in the first", dict.fromkeys(found.missing, "")),
        ("only in the second", dict.fromkeys(found.unexpected, "")),
        ("of another type or shape", found.other_form),
        ("with other values", found.other_values),
    ):
        if names:
            print(f"{len(names):,} {title}:")
            for name, text in list(names.items())[:SHOWN]:
                print(f"  {name} {text}".rstrip())
            if len(names) > SHOWN:
                print(f"  and {len(names) - SHOWN:,} more")
    if found.largest:
        print(f"the largest difference is {found.largest:.3g}")
