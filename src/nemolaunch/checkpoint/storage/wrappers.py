"""Views of a tensor source: with other names or with fewer rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.storage.tensors import TensorSource

if TYPE_CHECKING:
    import torch

COMPARED_ROWS = 4096


class Renamed:
    """Some of a source's tensors under other names."""

    def __init__(self, source: TensorSource, names: Mapping[str, str]) -> None:
        """`names` maps the new names to the source's."""
        self._source, self._names = source, names
        self.tensors = {name: source.tensors[old] for name, old in names.items()}

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        return self._source.read(self._names[name])

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._source.read_rows(self._names[name], start, stop)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class FirstRows:
    """A source with only the first rows of some tensors: a vocabulary without its padding."""

    def __init__(self, source: TensorSource, names: Collection[str], rows: int) -> None:
        self._source, self._names, self._rows = source, names, rows
        self.tensors = {
            name: info.rows(0, rows) if name in names else info for name, info in source.tensors.items()
        }

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        if name in self._names:
            return self._source.read_rows(name, 0, self._rows)
        return self._source.read(name)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._source.read_rows(name, start, stop)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def same_tensor(source: TensorSource, one: str, other: str) -> bool:
    """Return whether two tensors of a source have the same bits."""
    return same_tensors(source, one, source, other)


def same_tensors(first: TensorSource, one: str, second: TensorSource, other: str) -> bool:
    """Return whether tensors of two sources have the same bits, reading them in parts up to the first difference."""
    import torch

    info = first.tensors[one]
    if info != second.tensors[other]:
        return False
    if not info.shape:
        return torch.equal(first.read(one), second.read(other))
    for start in range(0, info.shape[0], COMPARED_ROWS):
        stop = min(start + COMPARED_ROWS, info.shape[0])
        a, b = first.read_rows(one, start, stop), second.read_rows(other, start, stop)
        if not torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)):
            return False
    return True
