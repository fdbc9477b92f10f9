"""The progress of a training in a checkpoint of Megatron-Bridge: common state, `train_state.pt`, `run_config.yaml`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.arithmetic.schedule import Schedule, schedule_of
from nemolaunch.checkpoint.bridge import state
from nemolaunch.checkpoint.bridge.folder import train_state
from nemolaunch.checkpoint.megatron.sink import save
from nemolaunch.checkpoint.migrate import optimizer as tree
from nemolaunch.checkpoint.migrate.progress import Layout, Progress, batch_size, optimizer_fields
from nemolaunch.checkpoint.nemo2.recorded import LAYOUT
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.bridge_run_config import RunConfig
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.run.folder import BRIDGE_STREAM, read_json
from nemolaunch.system.atomic_files import write_json

# Of megatron.core.dist_checkpointing since 0.19, which reads the common state of older ones too
BACKEND = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
CHECKPOINT_VERSION = 3.0
STYLES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "inverse-sqrt": "inverse-square-root",
    "wsd": "WSD",
}


def read(checkpoint: Path, stored: DcpSource, config: RunConfig, run: SavedRun) -> tuple[Progress, Layout]:
    """Return how far the training is that saved a checkpoint, and its layout.

    Raises:
        NemolaunchError: it is not of a training, or of one that cannot be continued elsewhere.
    """
    common = state.common(stored)
    step, samples = state.progress(checkpoint)
    found = progress_of(common, step, samples, run, config.section("train"))
    found = dataclasses.replace(found, stream=_stream(checkpoint / BRIDGE_STREAM))
    sizes = {name: size for name in LAYOUT if isinstance(size := config.model.get(name), int)}
    layout = Layout(
        sizes=sizes,
        sequence_parallel=bool(config.model.get("sequence_parallel")),
        processes=int(run.values.get("num_gpus") or 0) * int(run.values.get("num_nodes") or 1)
        or state.num_writers(checkpoint),
        nodes=int(run.values.get("num_nodes") or 1),
    )
    return found, layout


def _stream(path: Path) -> dict[str, Any] | None:
    found = read_json(path)
    if found is None and path.exists():
        raise NemolaunchError(f"the position in {path} cannot be read")
    return found


def progress_of(
    common: Mapping[str, Any], step: int, samples: int, run: SavedRun, train: Mapping[str, Any]
) -> Progress:
    """Return the progress that Megatron-Core's common state records; `train` has sizes that are configured."""
    version = common.get("checkpoint_version")
    if "optimizer" not in common or not step:
        raise NemolaunchError(
            "it is not of a training, or was saved without the optimizer, so there is none to move"
        )
    if version != CHECKPOINT_VERSION:
        raise NemolaunchError(f"its checkpoint_version is {version}; {CHECKPOINT_VERSION} is known")
    size = batch_size(run.values.get("global_batch_size") or train.get("global_batch_size"), step, samples)
    schedule = schedule_of(run.values)
    if schedule is None and size:
        schedule = _schedule(common.get("opt_param_scheduler") or {}, size)
    return Progress(
        step=step,
        samples=samples,
        optimizer=tree.plain(common["optimizer"]),
        content=dict(common.get("content_metadata") or {}),
        schedule=schedule,
        global_batch_size=size,
        max_steps=run.values.get("max_steps") or train.get("train_iters"),
    )


def write(checkpoint: Path, progress: Progress) -> None:
    """Write what a checkpoint has besides tensors and the configuration.

    Megatron-Core 0.19 stores the common state as an object among the tensors, and still reads it from a file.
    """
    save(common_of(progress), checkpoint / "common.pt")
    (checkpoint / "metadata.json").write_text(json.dumps(BACKEND), encoding="utf-8")
    save(train_state(progress.step, progress.samples), checkpoint / state.TRAIN_STATE)
    if progress.stream is not None:
        write_json(checkpoint / BRIDGE_STREAM, progress.stream)


def common_of(progress: Progress) -> dict[str, Any]:
    """Return Megatron-Core's common state."""
    schedule, size = progress.schedule, progress.global_batch_size
    found: dict[str, Any] = {
        "checkpoint_version": CHECKPOINT_VERSION,
        "iteration": progress.step,
        "optimizer": tree.as_bridge(progress.optimizer),
        "content_metadata": progress.content,
    }
    if schedule is not None and size:
        decay = max((group["weight_decay"] for group in tree.groups(progress.optimizer)), default=0.0)
        found["opt_param_scheduler"] = {
            "max_lr": schedule.lr,
            "lr_warmup_steps": schedule.warmup_steps * size,
            "num_steps": progress.samples,
            "lr_decay_style": STYLES[schedule.style],
            "lr_decay_steps": schedule.decay_steps * size,
            "min_lr": schedule.min_lr,
            "start_wd": decay,
            "end_wd": decay,
            "wd_incr_style": "constant",
            "wd_incr_steps": (progress.max_steps or schedule.decay_steps) * size,
        }
    return found


def _schedule(state: Mapping[str, Any], size: int) -> Schedule | None:
    """Return the schedule that Megatron's scheduler recorded in samples."""
    style = next((ours for ours, theirs in STYLES.items() if theirs == state.get("lr_decay_style")), None)
    if style is None or style == "wsd" or not state.get("lr_decay_steps"):
        return None
    return Schedule(
        style=style,
        lr=state["max_lr"],
        min_lr=state["min_lr"],
        warmup_steps=int(state["lr_warmup_steps"]) // size,
        decay_steps=int(state["lr_decay_steps"]) // size,
    )


def sections(progress: Progress, layout: Layout) -> dict[str, dict[str, Any]]:
    """Return the sections of a `run_config.yaml` about the training, besides the model and the tokenizer."""
    config = "megatron.bridge.training.config"
    optimizer = optimizer_fields(progress)
    return {
        "checkpoint": {
            "_target_": f"{config}.CheckpointConfig",
            "ckpt_format": "torch_dist",
            "save_optim": True,
            "save_rng": False,  # NeMo 2 saves none
            "fully_parallel_save": True,
            "dist_ckpt_optim_fully_reshardable": True,
        },
        "ddp": {
            "_target_": f"{config}.DistributedDataParallelConfig",
            "use_distributed_optimizer": optimizer["use_distributed_optimizer"],
        },
        "optimizer": {"_target_": f"{config}.OptimizerConfig", **optimizer},
        "train": {
            "_target_": f"{config}.TrainingConfig",
            "train_iters": progress.max_steps,
            "global_batch_size": progress.global_batch_size,
        },
    }
