"""The progress of a training in a checkpoint of NeMo 2: `weights/common.pt`, with Lightning's counters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemolaunch.arithmetic.schedule import Schedule, schedule_of
from nemolaunch.checkpoint.megatron.sink import BACKEND, save
from nemolaunch.checkpoint.migrate import optimizer as tree
from nemolaunch.checkpoint.migrate.progress import Layout, Progress, batch_size, optimizer_fields
from nemolaunch.checkpoint.nemo2 import context
from nemolaunch.checkpoint.nemo2.fiddle_json import Call, Symbol
from nemolaunch.checkpoint.nemo2.recorded import LAYOUT, recorded
from nemolaunch.checkpoint.storage.saved import read_saved
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.saved_values import SavedRun

COMMON = "common.pt"
DATA = "PreTrainingDataModule"  # NeMo's name of what holds the number of samples consumed
STREAM_DATA = "StreamDataModule"  # that of a training on a stream, `nemolaunch.nemo2.stream_data`
LIGHTNING = "2.4.0"


def read(checkpoint: Path, run: SavedRun) -> tuple[Progress, Layout]:
    """Return how far the training is that saved a checkpoint, and its layout.

    Raises:
        NemolaunchError: it is not of a training, or of one that cannot be continued elsewhere.
    """
    common = read_saved(checkpoint / "weights" / COMMON)
    about = recorded(checkpoint / "context" / "io.json")
    trainer = about["trainer"]
    data = next((v for v in common.values() if isinstance(v, dict) and "consumed_samples" in v), {})
    samples = data.get("consumed_samples")
    optimizers = common.get("optimizer")
    if not common.get("loops") or samples is None or not isinstance(optimizers, list) or len(optimizers) != 1:
        raise NemolaunchError(
            f"{checkpoint} is not of a training with one optimizer, so there is none to move"
        )
    progress = Progress(
        step=int(common["global_step"]),
        samples=int(samples),
        optimizer=tree.plain(optimizers[0]),
        content=dict(common.get("content_metadata") or {}),
        schedule=schedule_of(run.values) or _schedule(common),
        global_batch_size=batch_size(
            run.values.get("global_batch_size") or about["data"].get("global_batch_size"),
            int(common["global_step"]),
            int(samples),
        ),
        max_steps=run.values.get("max_steps") or trainer.get("max_steps"),
        stream=_with_readers(data.get("stream"), lambda table: table.tolist()),
    )
    sizes = {name: int(trainer[name]) for name in LAYOUT if isinstance(trainer.get(name), int)}
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes")
    nodes = nodes if isinstance(nodes, int) else 1
    layout = Layout(
        sizes=sizes,
        sequence_parallel=bool(trainer.get("sequence_parallel")),
        processes=devices * nodes if isinstance(devices, int) else 1,
        nodes=nodes,
    )
    return progress, layout


def write(weights: Path, progress: Progress, *, num_groups: int) -> None:
    """Write what `weights/` has besides tensors."""
    save(_common(progress, num_groups), weights / COMMON)
    (weights / "metadata.json").write_text(json.dumps(BACKEND), encoding="utf-8")


def _common(progress: Progress, num_groups: int) -> dict[str, Any]:
    import torch

    schedule = progress.schedule
    stream = _with_readers(progress.stream, lambda table: torch.tensor(table, dtype=torch.int64))
    data: dict[str, Any] = {"consumed_samples": progress.samples, **({"stream": stream} if stream else {})}
    decay = max((group["weight_decay"] for group in tree.groups(progress.optimizer)), default=0.0)
    return {
        "epoch": 0,
        "global_step": progress.step,
        "pytorch-lightning_version": LIGHTNING,
        "state_dict": {},
        "loops": _loops(progress.step),
        "callbacks": {},
        "optimizer_states": {},
        "lr_schedulers": [_schedule_state(schedule, progress.step, num_groups)] if schedule else [],
        STREAM_DATA if stream else DATA: data,
        "optimizer": [tree.as_nemo(progress.optimizer, decay)],
        "content_metadata": progress.content,
    }


def _with_readers(stream: Mapping[str, Any] | None, change: Callable[[Any], Any]) -> dict[str, Any] | None:
    """Return a position with its table of readers in another form."""
    return None if stream is None else {**stream, "readers": change(stream["readers"])}


def _schedule_state(schedule: Schedule, step: int, num_groups: int) -> dict[str, Any]:
    """Return the state of NeMo's scheduler, whose last `constant_steps` are ours after the decay's end."""
    return {
        "last_epoch": step,
        "_step_count": step + 1,
        "max_steps": schedule.decay_steps,
        "warmup_steps": schedule.warmup_steps,
        "constant_steps": 0,
        "decay_steps": schedule.decay_steps - schedule.warmup_steps,
        "min_lr": schedule.min_lr,
        "base_lrs": [schedule.lr] * num_groups,
        "_last_lr": [schedule.rate(step)] * num_groups,
    }


def _schedule(common: dict[str, Any]) -> Schedule | None:
    """Return the schedule that NeMo's own scheduler recorded, which is a cosine's unless a plan says otherwise."""
    found = common.get("lr_schedulers")
    state = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    rates = state.get("base_lrs")
    if not rates or not state.get("max_steps"):
        return None
    return Schedule(
        style="cosine",
        lr=rates[0],
        min_lr=state.get("min_lr") or 0.0,
        warmup_steps=state.get("warmup_steps") or 0,
        decay_steps=state["max_steps"] - (state.get("constant_steps") or 0),
    )


def _loops(step: int) -> dict[str, Any]:
    """Return the counters of Lightning's loops after `step` steps.

    As in NeMo's own checkpoints, which are saved before Lightning counts the step as completed.
    """

    def counted(number: int, completed: int | None = None) -> dict[str, int]:
        done = number if completed is None else completed
        return {"ready": number, "completed": done, "started": number, "processed": number}

    def progress(number: int, completed: int | None = None) -> dict[str, Any]:
        return {"total": counted(number, completed), "current": counted(number, completed)}

    def short(number: int, *more: str) -> dict[str, Any]:
        one = dict.fromkeys(("ready", "completed", *more), number)
        return {"total": dict(one), "current": dict(one)}

    def evaluation() -> dict[str, Any]:
        return {"state_dict": {}, "batch_progress": {**progress(0), "is_last_batch": False}}

    epoch = {"ready": 1, "completed": 0, "started": 1, "processed": 0}
    fit = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": step - 1},
        "epoch_loop.batch_progress": {**progress(step, step - 1), "is_last_batch": False},
        "epoch_loop.scheduler_progress": short(step),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {"step": short(step), "zero_grad": short(0, "started")}
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": short(0),
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {**progress(0), "is_last_batch": False},
        "epoch_progress": {"total": dict(epoch), "current": dict(epoch)},
    }
    return {
        "fit_loop": fit,
        "validate_loop": evaluation(),
        "test_loop": evaluation(),
        "predict_loop": {"state_dict": {}, "batch_progress": progress(0)},
    }


def trainer_call(progress: Progress, layout: Layout) -> Call:
    """Return NeMo's trainer with the layout, for a context."""
    strategy: dict[str, Any] = {
        **layout.sizes,
        "sequence_parallel": layout.sequence_parallel,
        "ckpt_optim_fully_reshardable": True,
    }
    if layout.sizes.get("pipeline_model_parallel_size", 1) > 1:
        strategy["pipeline_dtype"] = Symbol("torch", layout.dtype)
    return context.trainer_call(
        strategy,
        devices=layout.processes // layout.nodes,
        num_nodes=layout.nodes,
        max_steps=progress.max_steps or -1,
    )


def optimizer_call(progress: Progress) -> Call:
    """Return NeMo's optimizer with its rates and its schedule, for a context."""
    config = Call("megatron.core.optimizer.optimizer_config", "OptimizerConfig", optimizer_fields(progress))
    arguments: dict[str, Any] = {"config": config}
    if progress.schedule is not None:
        s = progress.schedule
        arguments["lr_scheduler"] = Call(
            "nemo.lightning.pytorch.optim.lr_scheduler",
            "CosineAnnealingScheduler",
            {
                "max_steps": s.decay_steps,
                "warmup_steps": s.warmup_steps,
                "constant_steps": 0,
                "min_lr": s.min_lr,
            },
        )
    return Call("nemo.lightning.pytorch.optim.megatron", "MegatronOptimizerModule", arguments)
