"""Quantised weights that are stored with their scales, read as bfloat16."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSource
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    import torch

FP8_BLOCK = 128  # where the configuration names no other: DeepSeek V3, Qwen 3
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # E2M1; the fourth bit is the sign
SCALE_BIAS = 127  # E8M0
MXFP4 = re.compile(r"^(?P<name>.*)_(?P<kind>blocks|scales)$")
SCALES = ("_scale_inv", "_scale")  # both are factors of the stored weight
FLOAT8 = "float8"
# Scales of activations and of the cache of keys and values, which a model in bfloat16 does not need
ACTIVATIONS = re.compile(r"(^|\.)(input|activation|output|[qkv]|prob|prob_output)_scale(_ub)?$")


class Dequantised:
    """A source whose 8- and 4-bit weights, stored with scales, are read as bfloat16.

    There are two forms: float8 with `…_scale_inv` or `…_scale`, one for the whole tensor, for each row, or for each
    block; and MXFP4 in `…_blocks` and `…_scales` (GPT-OSS), which transformers transposes to `[experts, in, out]`.

    Attributes:
        tensors: the tensors as they are read.
        unused: the names of scales of activations, which are not read.
    """

    def __init__(self, source: TensorSource, block: Sequence[int] | None = None) -> None:
        """`block` is the size of the blocks that have one scale each, if the configuration says it."""
        self._source, self._block = source, block
        self._scale_of: dict[str, str] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, info in source.tensors.items():
            scale = next((name + ending for ending in SCALES if name + ending in source.tensors), None)
            if scale and info.dtype.startswith(FLOAT8):
                self._scale_of[name] = scale
        scales = set(self._scale_of.values())
        self.unused = [name for name in source.tensors if ACTIVATIONS.search(name) and name not in scales]
        for name, info in source.tensors.items():
            mxfp4 = MXFP4.match(name)
            packed = mxfp4 is not None and all(
                mxfp4["name"] + end in source.tensors for end in ("_blocks", "_scales")
            )
            if name in scales or name in self.unused or (mxfp4 and packed and mxfp4["kind"] == "scales"):
                continue
            if mxfp4 and packed and len(info.shape) == 4:
                experts, rows, blocks, width = info.shape
                self.tensors[mxfp4["name"]] = TensorInfo("bfloat16", (experts, blocks * width * 2, rows))
            else:
                self.tensors[name] = TensorInfo("bfloat16", info.shape) if name in self._scale_of else info

    @property
    def quantised(self) -> list[str]:
        """The names of the weights that are stored in 8 or 4 bits with scales."""
        return [n for n in self.tensors if n in self._scale_of or f"{n}_blocks" in self._source.tensors]

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        if name not in self._source.tensors:
            return _from_mxfp4(self._source.read(name + "_blocks"), self._source.read(name + "_scales"))
        tensor = self._source.read(name)
        if name in self._scale_of:
            return _from_fp8(name, tensor, self._source.read(self._scale_of[name]), self._block)
        return tensor

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        if self.tensors[name] == self._source.tensors.get(name):
            return self._source.read_rows(name, start, stop)
        return self.read(name)[start:stop]

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _from_fp8(
    name: str, weight: torch.Tensor, scales: torch.Tensor, block: Sequence[int] | None
) -> torch.Tensor:
    import torch

    factors = scales.float()
    if factors.numel() == 1:
        factors = factors.reshape(())
    elif factors.dim() == 1 and factors.shape[0] == weight.shape[0]:
        factors = factors.reshape(-1, *[1] * (weight.dim() - 1))
    elif not _is_broadcast(factors.shape, weight.shape):
        factors = _by_block(name, weight, factors, block)
    return (weight.float() * factors).to(torch.bfloat16)


def _is_broadcast(small: Sequence[int], large: Sequence[int]) -> bool:
    return len(small) == len(large) and all(a in (1, b) for a, b in zip(small, large, strict=True))


def _by_block(
    name: str, weight: torch.Tensor, scales: torch.Tensor, block: Sequence[int] | None
) -> torch.Tensor:
    """Repeat one scale per block of the last two axes for each element."""
    fits = scales.dim() == weight.dim() >= 2 and scales.shape[:-2] == weight.shape[:-2]
    for axis in (-2, -1):
        size = (
            _block_size(weight.shape[axis], scales.shape[axis], block[axis] if block else None)
            if fits
            else None
        )
        if size is None:
            raise NemolaunchError(
                f"{name} is float8 of shape {list(weight.shape)}, but its scales have the shape {list(scales.shape)}: "
                f"neither one for all, nor one for each row or each block"
                + (f" of {block[0]} x {block[1]}" if block else "")
            )
        scales = scales.repeat_interleave(size, axis).narrow(axis, 0, weight.shape[axis])
    return scales


def _block_size(length: int, scales: int, stated: int | None) -> int | None:
    """Return how many elements of an axis share a scale; None if the number of scales does not fit."""
    sizes = [stated] if stated else [FP8_BLOCK, length // scales if length % scales == 0 else 0]
    return next((size for size in sizes if size and -(-length // size) == scales), None)


def _from_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    import torch

    values = torch.tensor([*FP4_VALUES, *(-value for value in FP4_VALUES)], dtype=torch.bfloat16)
    experts, rows, count, width = blocks.shape
    result = torch.empty(experts, count * width * 2, rows, dtype=torch.bfloat16)
    # One expert at a time, to save memory
    for into, packed, scale in zip(result, blocks, scales, strict=True):
        pairs = torch.stack([values[(packed & 15).int()], values[(packed >> 4).int()]], dim=-1)
        scaled = torch.ldexp(pairs.reshape(rows, count, 2 * width), (scale.int() - SCALE_BIAS).unsqueeze(-1))
        into.copy_(scaled.reshape(rows, -1).t())
    return result
