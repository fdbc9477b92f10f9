"""The progress of a training in a checkpoint of Megatron-LM: the common state, and the command line in it."""

from __future__ import annotations

import json
from pathlib import Path

from nemolaunch.checkpoint.megatron.sink import save
from nemolaunch.checkpoint.megatron_lm import arguments
from nemolaunch.checkpoint.megatron_lm.folder import MegatronLmFolder
from nemolaunch.checkpoint.migrate import bridge_side
from nemolaunch.checkpoint.migrate import optimizer as tree
from nemolaunch.checkpoint.migrate.progress import Layout, Progress
from nemolaunch.checkpoint.nemo2.recorded import LAYOUT
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.families.nemo_config import NemoConfig


def read(folder: MegatronLmFolder) -> tuple[Progress, Layout]:
    """Return how far the training is that saved a checkpoint, and its layout.

    Raises:
        NemolaunchError: it is not of a training, or of one that cannot be continued elsewhere.
    """
    args, common = folder.args, folder.common
    progress = bridge_side.progress_of(
        common,
        int(common.get("iteration") or 0),
        int(args.get("consumed_train_samples") or 0),
        SavedRun(),
        args,
    )
    layout = Layout(
        sizes={name: size for name in LAYOUT if isinstance(size := args.get(name), int)},
        sequence_parallel=bool(args.get("sequence_parallel")),
        processes=int(args.get("world_size") or 1),
    )
    return progress, layout


def write(checkpoint: Path, progress: Progress, layout: Layout, config: NemoConfig) -> None:
    """Write what a checkpoint has besides tensors."""
    group = next(iter(tree.groups(progress.optimizer)))
    sharded = progress.content.get("distrib_optim_sharding_type") is not None
    size = layout.processes
    for name in ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"):
        size //= layout.sizes.get(name) or 1
    args = arguments.recorded(
        config,
        **{
            name: layout.sizes.get(name) or 1
            for name in LAYOUT
            if not name.startswith(("virtual", "expert_tensor"))
        },
        sequence_parallel=layout.sequence_parallel,
        world_size=layout.processes,
        data_parallel_size=max(size, 1),
        consumed_train_samples=progress.samples,
        iteration=progress.step,
        train_iters=progress.max_steps,
        global_batch_size=progress.global_batch_size,
        lr=group.get("max_lr"),
        min_lr=group.get("min_lr"),
        weight_decay=max(each["weight_decay"] for each in tree.groups(progress.optimizer)),
        use_distributed_optimizer=sharded,
        fp16=False,
        bf16=layout.dtype == "bfloat16",
    )
    common = {"args": args, **bridge_side.common_of(progress), "num_floating_point_operations_so_far": 0}
    save(common, checkpoint / "common.pt")
    (checkpoint / "metadata.json").write_text(json.dumps(bridge_side.BACKEND), encoding="utf-8")
