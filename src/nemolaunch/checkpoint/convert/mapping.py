"""The correspondence of Hugging Face tensors and NeMo parameters, with types and shapes on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.storage.tensors import TensorInfo, info_of
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.param_shapes import ModelSizes, parameters
from nemolaunch.families.rules import Group, counted, export_groups, import_groups, some

if TYPE_CHECKING:
    import torch

SHOWN = 5


@dataclass(frozen=True)
class TensorMap:
    """The tensors of a Hugging Face model and of a NeMo model, and the groups that connect them."""

    groups: tuple[Group, ...]
    hf: dict[str, TensorInfo]
    nemo: dict[str, TensorInfo]
    sizes: ModelSizes

    def group_bytes(self, group: Group) -> int:
        """Return the size in bytes of a group's tensors on one side."""
        return sum(self.hf[name].nbytes for name in group.hf)


def sizes_of(family: ModelFamily, config: Mapping[str, object]) -> ModelSizes:
    """Return the sizes of a NeMo model, from its configuration with all fields."""
    return ModelSizes({**config, **family.traits})


def import_map(
    family: ModelFamily,
    sizes: ModelSizes,
    hf: Mapping[str, TensorInfo],
    vocab_rows: int,
    *,
    ignored: Collection[str] = (),
) -> TensorMap:
    """Map a model's Hugging Face tensors to all of its NeMo parameters.

    Raises `NemolaunchError`, with names, for unknown tensors, missing tensors, and unexpected shapes.
    """
    expected = parameters(sizes.config, vocab_rows)
    groups = import_groups(family.rules, hf, expected, sizes.experts, ignored=ignored)
    nemo: dict[str, TensorInfo] = {}
    for group in groups:
        nemo.update(
            zip(group.nemo, _shapes(group, [hf[name] for name in group.hf], sizes, to_nemo=True), strict=True)
        )
    _check_shapes({name: info.shape for name, info in nemo.items()}, expected)
    return TensorMap(tuple(groups), {n: hf[n] for group in groups for n in group.hf}, nemo, sizes)


def export_map(
    family: ModelFamily, sizes: ModelSizes, nemo: Mapping[str, TensorInfo], vocab_rows: int
) -> TensorMap:
    """Map a NeMo model's parameters, which must be complete, to its Hugging Face tensors.

    Raises `NemolaunchError`, with names, for missing parameters, unknown parameters, and unexpected shapes.
    """
    expected = parameters(sizes.config, vocab_rows)
    _check_names(nemo, expected)
    _check_shapes({name: nemo[name].shape for name in expected}, expected)
    groups = export_groups(family.rules, expected, sizes.experts)
    hf: dict[str, TensorInfo] = {}
    for group in groups:
        infos = _shapes(group, [nemo[name] for name in group.nemo], sizes, to_nemo=False)
        hf.update(zip(group.hf, infos, strict=True))
    return TensorMap(tuple(groups), hf, {name: nemo[name] for name in expected}, sizes)


def _shapes(group: Group, infos: list[TensorInfo], sizes: ModelSizes, *, to_nemo: bool) -> list[TensorInfo]:
    """Return the infos of a group's transformed tensors, by transforming tensors without data."""
    import torch

    empties = [torch.empty(info.shape, dtype=getattr(torch, info.dtype), device="meta") for info in infos]
    try:
        return [info_of(tensor) for tensor in transform(group, empties, sizes, to_nemo=to_nemo)]
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        names = ", ".join(group.hf if to_nemo else group.nemo)
        shapes = ", ".join(map(str, infos))
        raise NemolaunchError(
            f"the shapes of {names} ({shapes}) do not match the configuration, which has {sizes.heads} heads of "
            f"{sizes.head_dim} channels and {sizes.groups} groups: {error}"
        ) from error


def transform(
    group: Group, tensors: list[torch.Tensor], sizes: ModelSizes, *, to_nemo: bool
) -> list[torch.Tensor]:
    """Return the group's tensors on the other side."""
    return list(group.op.to_nemo(tensors, sizes) if to_nemo else group.op.to_hf(tensors, sizes))


def _check_names(found: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    lines = []
    if missing:
        lines.append(f"  missing: {counted(missing, 'parameter')}: {some(missing)}")
    if extra:
        lines.append(f"  not part of the model: {counted(extra, 'tensor')}: {some(extra)}")
    if lines:
        raise NemolaunchError(
            "the checkpoint is not the model that its configuration describes:\n" + "\n".join(lines)
        )


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        f"  {name} is {list(found[name])}, but the configuration says {list(shape)}"
        for name, shape in expected.items()
        if tuple(found[name]) != tuple(shape)
    ]
    if wrong:
        more = [f"  and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise NemolaunchError(
            "the shapes of tensors do not match the configuration:\n" + "\n".join([*wrong[:SHOWN], *more])
        )
