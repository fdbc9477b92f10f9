"""How far a training is, whichever framework saved it: what a checkpoint holds besides tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemolaunch.arithmetic.schedule import Schedule
from nemolaunch.checkpoint.migrate import optimizer as tree

# Megatron-Core's description of how the state is saved; both frameworks read it
CONTENT = {
    "singleton_local_shards": (False,),
    "chained_optim_avoid_prefix": (True,),
    "distrib_optim_sharding_type": ("fully_reshardable", None),
    "distrib_optim_fully_reshardable_mem_efficient": (False, True, None),
}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state that all processes of a training share.

    Attributes:
        step: optimizer steps done.
        samples: samples consumed, which is the place in the data.
        optimizer: the tree of `nemolaunch.checkpoint.migrate.optimizer.plain`.
        content: Megatron-Core's description of how the state is saved.
        schedule: of the learning rate; None if not known.
        global_batch_size: None if not known.
        max_steps: None if not known.
        stream: the position of a training on a stream (`nemolaunch.stream.state`), with the readers' numbers as lists.
    """

    step: int
    samples: int
    optimizer: Any
    content: dict[str, Any]
    schedule: Schedule | None = None
    global_batch_size: int | None = None
    max_steps: int | None = None
    stream: Mapping[str, Any] | None = None

    @property
    def counters(self) -> dict[str, int]:
        """The numbers that must be the same before and after."""
        return {"step": self.step, "samples": self.samples}


def optimizer_fields(progress: Progress) -> dict[str, Any]:
    """Return the fields of Megatron's `OptimizerConfig` that the state tells, the same for both frameworks."""
    groups = list(tree.groups(progress.optimizer))
    betas = groups[0].get("betas") or (0.9, 0.999)
    return {
        "optimizer": "adam" if "betas" in groups[0] else "sgd",
        "lr": groups[0].get("max_lr"),
        "min_lr": groups[0].get("min_lr"),
        "weight_decay": max(group["weight_decay"] for group in groups),
        "adam_beta1": betas[0],
        "adam_beta2": betas[1],
        "adam_eps": groups[0].get("eps", 1e-8),
        "use_distributed_optimizer": progress.content.get("distrib_optim_sharding_type") is not None,
    }


def batch_size(recorded: Any, step: int, samples: int) -> int | None:
    """Return the global batch size: as recorded, else that of a training in which it never changed."""
    if isinstance(recorded, int) and recorded:
        return recorded
    return samples // step if step and samples % step == 0 else None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The parallel layout that a checkpoint was saved with, by Megatron's names, and its number of processes.

    `dtype` is that of the parameters.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    sequence_parallel: bool = False
    processes: int = 1
    nodes: int = 1
    dtype: str = "float32"
