"""What a checkpoint says of its optimizer besides the tensors: groups of parameters, and how the state is sharded.

NeMo 2 and Megatron-Bridge hold the same tree of Megatron-Core's, whose groups have other names for the same values. A
field that is not known here would be a release that is not: it is refused, not dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nemolaunch.errors import NemolaunchError

Group = dict[str, Any]

TREE = {"optimizer", "param_groups", "param_state_sharding_type", "state", "common_step"}
# Fields that mean the same in both; those of the second line are of Transformer Engine's Adam and of torch's
SHARED = {
    "is_expert_parallel", "is_decoupled_lr", "max_lr", "min_lr", "lr", "betas", "eps", "weight_decay", "step", "params",
    "bias_correction", "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused",
    "decoupled_weight_decay", "momentum", "dampening", "nesterov",
}  # fmt: skip
MULTIPLIERS = ("wd_mult", "lr_mult")
# Computed from the others, by NeMo 2 and Lightning, or by Megatron-Core
DERIVED = {"pre_mult_lr", "pre_mult_wd", "initial_lr", "default_config"}
KNOWN = SHARED | DERIVED | {*MULTIPLIERS} | {f"pre_{name}" for name in MULTIPLIERS}
RESHARDABLE = "fully_reshardable"


def plain(optimizer: Any) -> Any:
    """Return an optimizer's tree with groups that have only what both frameworks know, under Megatron-Core's names.

    Raises:
        NemolaunchError: it has a field, or a kind of sharding, that is not known to mean the same in both.
    """
    return _mapped(optimizer, _plain)


def as_nemo(optimizer: Any, weight_decay: float) -> Any:
    """Return the tree with the groups of NeMo 2; `weight_decay` is that of the parameters that are decayed."""

    def group(values: Group) -> Group:
        rest = {name: value for name, value in values.items() if name not in MULTIPLIERS}
        rate = values.get("max_lr", values.get("lr"))
        return {
            **rest,
            **{f"pre_{name}": values[name] for name in MULTIPLIERS},
            "pre_mult_lr": rate,
            "pre_mult_wd": weight_decay,
            "initial_lr": rate,
        }

    return _mapped(optimizer, group)


def as_bridge(optimizer: Any) -> Any:
    """Return the tree with the groups of Megatron-Core 0.16 and newer."""
    return _mapped(optimizer, lambda group: {**group, "default_config": True})


def groups(optimizer: Any) -> Iterator[Group]:
    """Yield all groups of parameters in a tree."""
    if isinstance(optimizer, Mapping):
        for name, value in optimizer.items():
            yield from value if name == "param_groups" else groups(value)


def _plain(group: Group) -> Group:
    unknown = sorted(set(group) - KNOWN)
    if unknown:
        raise NemolaunchError(
            f"the optimizer's groups have {', '.join(unknown)}, which no release that this is tested with has"
        )
    multipliers = {name: group.get(name, group.get(f"pre_{name}")) for name in MULTIPLIERS}
    missing = [name for name, value in multipliers.items() if value is None]
    if missing:
        raise NemolaunchError(f"the optimizer's groups have no {' and no '.join(missing)}")
    return {**{name: value for name, value in group.items() if name in SHARED}, **multipliers}


def _mapped(tree: Any, change: Callable[[Group], Group]) -> Any:
    """Return a tree with changed groups. Optimizers of a chain, as of models with experts, are numbered."""
    if not isinstance(tree, Mapping):
        return tree
    found = {}
    for name, value in tree.items():
        if not (name in TREE or isinstance(name, int)):
            raise NemolaunchError(
                f"the optimizer saves {name!r}, which is not known to mean the same in both frameworks"
            )
        if name == "param_state_sharding_type" and value != RESHARDABLE:
            raise NemolaunchError(
                f"the optimizer state is sharded as {value!r}; only {RESHARDABLE!r} can be moved"
            )
        found[name] = (
            [change(dict(group)) for group in value] if name == "param_groups" else _mapped(value, change)
        )
    return found
