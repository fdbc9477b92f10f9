"""The interface that the readers and writers of all formats share: the tensors of a checkpoint, one at a time.

A reader knows all names, types and shapes from the start, and reads a tensor when asked for it. A writer is told
all of them before it gets the first tensor, so that it can lay out its files. Neither holds more than the current
tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

# torch's names of the dtypes that weights have -> bytes of one element
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e8m0fnu": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class TensorInfo:
    """The dtype in torch's spelling ("bfloat16"), and the shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.numel * ITEM_BYTES[self.dtype]

    def rows(self, start: int, stop: int) -> TensorInfo:
        """Return the info of the slice from `start` to `stop` along the first axis."""
        return TensorInfo(self.dtype, (stop - start, *self.shape[1:]))

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class TensorSource(Protocol):
    """A checkpoint's tensors, in the order in which they are fastest to read."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Types and shapes, by name."""

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor, contiguous.

        Raises `NemolaunchError` if the file cannot be read or is truncated.
        """

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the slice of a tensor from `start` to `stop` along its first axis."""

    def close(self) -> None:
        """Close the files."""


class TensorSink(Protocol):
    """A checkpoint being written: each announced tensor is written once, in any order."""

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor."""

    def finish(self) -> None:
        """Complete the files and close them."""

    def close(self) -> None:
        """Close the files, complete or not."""


def info_of(tensor: torch.Tensor) -> TensorInfo:
    """Return the dtype and shape of a tensor in memory, or on the meta device."""
    return TensorInfo(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def empty(info: TensorInfo) -> torch.Tensor:
    """Return an uninitialised tensor."""
    import torch

    return torch.empty(info.shape, dtype=getattr(torch, info.dtype))


def buffer_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous tensor, to be read or written in place."""
    import torch

    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
