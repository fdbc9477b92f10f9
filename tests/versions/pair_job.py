"""What the ranks of the tests of version pairs run."""

from __future__ import annotations

from typing import Any


def train(plan_file: str, kill_after: int | None = None) -> dict[str, Any]:
    """Train a plan. Returns what `e2e.train_plan` records, the releases, and how each parameter is regularised:
    the multipliers of weight decay and learning rate with which Megatron builds its optimizer.
    """
    from importlib.metadata import version

    import megatron.core.optimizer as optimizer
    from e2e import train_plan

    build = optimizer._get_megatron_optimizer_based_on_param_groups
    multipliers: dict[str, list[float]] = {}

    def recording(*args: Any, **kwargs: Any) -> Any:
        names = {id(p): name for chunk in kwargs["model_chunks"] for name, p in chunk.named_parameters()}
        for group in kwargs["param_groups"]:
            for param in group["params"]:
                multipliers[names[id(param)]] = [group["wd_mult"], group["lr_mult"]]
        return build(*args, **kwargs)

    optimizer._get_megatron_optimizer_based_on_param_groups = recording
    found = train_plan.train(plan_file, kill_after=kill_after)
    releases = [version("nemo_toolkit"), version("megatron-core")]
    return {**found, "multipliers": multipliers, "releases": releases}


def applied() -> list[str]:
    """Names of the patches that this environment needed."""
    from nemolaunch.nemo2 import patches

    return list(patches.apply())


def overridden_groups(
    keep: list[str], scaled: list[str], lr_mult: float
) -> list[tuple[float, float, list[str]]]:
    """Weight decay, learning rate multiplier and names of each group that NeMo's arguments give.

    `keep` are endings of names without weight decay, `scaled` of those with another learning rate.
    """
    import torch
    from megatron.core import optimizer
    from megatron.core.optimizer import OptimizerConfig

    from nemolaunch.nemo2.patches import overrides_for

    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    torch.distributed.init_process_group("gloo")
    names = {id(p): name for name, p in model.named_parameters()}
    config = OptimizerConfig(lr=1.0, min_lr=0.1)
    overrides = overrides_for(
        config,
        (lambda name, param: name.endswith(tuple(keep))) if keep else None,
        (lambda name, param: name.endswith(tuple(scaled))) if scaled else None,
        lr_mult,
    )
    groups = optimizer._get_param_groups([model], config, overrides)
    return sorted(
        (group["wd_mult"], group["lr_mult"], sorted(names[id(p)] for p in group["params"]))
        for group in groups
    )
