"""Tensors of a checkpoint, one at a time: what every format's reader and writer looks like to the others.

A reader knows all names, types and shapes at once and reads a tensor when it is asked for. A writer is told
all of them before the first tensor comes, so that it can lay its files out. Neither holds more than the
tensor in hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

# torch's names of the types that weights come in -> bytes of one element
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class TensorInfo:
    """Type in torch's spelling ("bfloat16"), and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_BYTES[self.dtype]

    def rows(self, start: int, stop: int) -> TensorInfo:
        """Of the part from one index to another on the first axis."""
        return TensorInfo(self.dtype, (stop - start, *self.shape[1:]))

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class TensorSource(Protocol):
    """A checkpoint's tensors. `tensors` is in the order in which they are read fastest."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor, contiguous, in memory of its own.

        Raises `NemolaunchError` where the file cannot be read or is cut off.
        """

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """The part of a tensor from one index to another on its first axis."""

    def close(self) -> None: ...


class TensorSink(Protocol):
    """Takes every tensor it was announced once, in any order; `finish` makes the files complete."""

    def write(self, name: str, tensor: torch.Tensor) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def info_of(tensor: torch.Tensor) -> TensorInfo:
    """Type and shape of a tensor in memory, or of one on the meta device."""
    return TensorInfo(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def empty(info: TensorInfo) -> torch.Tensor:
    """Memory for a tensor, not initialised."""
    import torch

    return torch.empty(info.shape, dtype=getattr(torch, info.dtype))


def buffer_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor, to be read or written in place."""
    import torch

    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
