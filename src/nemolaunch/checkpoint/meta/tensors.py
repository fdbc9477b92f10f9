"""The tensors of Meta's Llamas: the row order of rotary positions, and shards of several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSource
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    import torch

EMBEDDING = "tok_embeddings.weight"
SPLIT_BY_COLUMNS = (".wo.weight", ".w2.weight")  # among processes; other matrices are split by rows


Reorder = Callable[["torch.Tensor", int], "torch.Tensor"]


def to_halves(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the rows of `heads` heads, reordered from Meta's order to Hugging Face's."""
    rows = tensor.shape[0] // heads
    return tensor.reshape(heads, rows // 2, 2, -1).transpose(1, 2).reshape(tensor.shape)


def to_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the rows of `heads` heads, reordered from Hugging Face's order to Meta's."""
    rows = tensor.shape[0] // heads
    return tensor.reshape(heads, 2, rows // 2, -1).transpose(1, 2).reshape(tensor.shape)


class RotaryOrder:
    """A Llama's tensors, with the rows of query and key projections reordered as they are read."""

    def __init__(self, source: TensorSource, config: Mapping[str, Any], reorder: Reorder) -> None:
        self._source, self._reorder = source, reorder
        heads = int(config["num_attention_heads"])
        self._heads = {
            (".q_proj.weight", ".wq.weight"): heads,
            (".k_proj.weight", ".wk.weight"): int(config.get("num_key_value_heads") or heads),
        }
        self.tensors = source.tensors

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        tensor = self._source.read(name)
        heads = self._heads_of(name)
        if heads is None:
            return tensor
        if tensor.shape[0] % (2 * heads):
            raise NemolaunchError(
                f"{name} has {tensor.shape[0]} rows, which is not a multiple of 2 x {heads} heads"
            )
        return self._reorder(tensor, heads)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        if self._heads_of(name) is None:
            return self._source.read_rows(name, start, stop)
        return self.read(name)[start:stop]

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _heads_of(self, name: str) -> int | None:
        return next((count for endings, count in self._heads.items() if name.endswith(endings)), None)


class JoinedShards:
    """Tensors that are split over several files, one for each tensor-parallel process.

    The axis along which the embedding is split differs among Meta's models, and is inferred from its width.
    """

    def __init__(self, shards: Sequence[TensorSource], dim: int) -> None:
        """Match the shards. Raises `NemolaunchError` if their tensors differ."""
        self._shards = shards
        self._axes: dict[str, int | None] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, info in shards[0].tensors.items():
            others = [shard.tensors.get(name) for shard in shards]
            if any(other is None or other != info for other in others):
                raise NemolaunchError(
                    f"the shards do not match: {name} does not have the same size in all of them"
                )
            axis = _axis(name, info, dim)
            self._axes[name] = axis
            shape = list(info.shape)
            if axis is not None:
                shape[axis] *= len(shards)
            self.tensors[name] = TensorInfo(info.dtype, tuple(shape))

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor, joined."""
        import torch

        axis = self._axes[name]
        if axis is None:
            return self._shards[0].read(name)
        return torch.cat([shard.read(name) for shard in self._shards], dim=axis)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        import torch

        axis = self._axes[name]
        if axis is None:
            return self._shards[0].read_rows(name, start, stop)
        if axis == 1:
            return torch.cat([shard.read_rows(name, start, stop) for shard in self._shards], dim=1)
        each = self.tensors[name].shape[0] // len(self._shards)
        parts = [
            shard.read_rows(name, max(start - first, 0), min(stop - first, each))
            for first, shard in zip(range(0, each * len(self._shards), each), self._shards, strict=True)
            if first < stop and start < first + each
        ]
        return torch.cat(parts)

    def close(self) -> None:
        """Close all shards."""
        for shard in self._shards:
            shard.close()


def _axis(name: str, info: TensorInfo, dim: int) -> int | None:
    """Return the axis along which a tensor is split among processes; None if each has all of it."""
    if len(info.shape) < 2:
        return None
    if name == EMBEDDING:
        return 0 if info.shape[1] == dim else 1
    return 1 if name.endswith(SPLIT_BY_COLUMNS) else 0
