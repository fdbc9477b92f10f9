"""A NeMo checkpoint's tensors, converted to the Hugging Face model's names and form as they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemolaunch.checkpoint.convert.mapping import TensorMap, transform
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.families.ops import Same

if TYPE_CHECKING:
    import torch


class ExportedSource:
    """The Hugging Face tensors of a NeMo source, which come from groups of its parameters.

    A group is read when one of its tensors is asked for, and the rest are kept until they are asked for too.
    Reading in the order of `tensors` is fastest and keeps the least in memory.
    """

    def __init__(self, mapped: TensorMap, source: TensorSource) -> None:
        self._mapped, self._source = mapped, source
        self._groups = {name: group for group in mapped.groups for name in group.hf}
        self._ready: dict[str, torch.Tensor] = {}
        self.tensors = {name: mapped.hf[name] for group in mapped.groups for name in group.hf}

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        if name not in self._ready:
            group = self._groups[name]
            read = [self._source.read(parameter) for parameter in group.nemo]
            made = transform(group, read, self._mapped.sizes, to_nemo=False)
            self._ready = dict(zip(group.hf, made, strict=True))
        return self._ready.pop(name).contiguous()

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        group = self._groups[name]
        if isinstance(group.op, Same):
            return self._source.read_rows(group.nemo[0], start, stop)
        return self.read(name)[start:stop]

    def close(self) -> None:
        """Close the source."""
        self._source.close()
