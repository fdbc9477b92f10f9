"""Views of a tensor source: with other names, with fewer rows, or dequantised."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSource
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    import torch

FP8_BLOCK = 128  # DeepSeek V3 has one scale per 128 x 128 block
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # E2M1; the fourth bit is the sign
SCALE_BIAS = 127  # E8M0
COMPARED_ROWS = 4096
MXFP4 = re.compile(r"^(?P<name>.*)_(?P<kind>blocks|scales)$")


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


class Dequantised:
    """A source whose 8- and 4-bit weights, stored with scales, are read as bfloat16.

    There are two forms: float8 in blocks with `weight_scale_inv` (DeepSeek V3), and MXFP4 in `…_blocks` and
    `…_scales` (GPT-OSS), which transformers transposes to `[experts, in, out]`.
    """

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self.tensors: dict[str, TensorInfo] = {}
        for name, info in source.tensors.items():
            mxfp4 = MXFP4.match(name)
            if name.endswith("_scale_inv") or (mxfp4 and mxfp4["kind"] == "scales"):
                continue
            if mxfp4:
                experts, rows, blocks, width = info.shape
                self.tensors[mxfp4["name"]] = TensorInfo("bfloat16", (experts, blocks * width * 2, rows))
            elif name + "_scale_inv" in source.tensors:
                self.tensors[name] = TensorInfo("bfloat16", info.shape)
            else:
                self.tensors[name] = info

    @property
    def is_quantised(self) -> bool:
        """Whether any weights are quantised."""
        return len(self.tensors) < len(self._source.tensors)

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        if name not in self._source.tensors:
            return _from_mxfp4(self._source.read(name + "_blocks"), self._source.read(name + "_scales"))
        tensor = self._source.read(name)
        if name + "_scale_inv" in self._source.tensors:
            return _from_fp8(tensor, self._source.read(name + "_scale_inv"))
        return tensor

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        if self.tensors[name] == self._source.tensors.get(name):
            return self._source.read_rows(name, start, stop)
        return self.read(name)[start:stop]

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _from_fp8(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    import torch

    rows, columns = weight.shape
    expected = tuple(-(-size // FP8_BLOCK) for size in weight.shape)
    if tuple(scales.shape) != expected:
        raise NemolaunchError(
            f"float8 scales of shape {list(scales.shape)} do not match a weight of {rows} x {columns}; "
            f"they should be {list(expected)}"
        )
    full = scales.float().repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)[:rows, :columns]
    return (weight.float() * full).to(torch.bfloat16)


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


def same_tensor(source: TensorSource, one: str, other: str) -> bool:
    """Return whether two tensors have the same bits, reading them in parts up to the first difference."""
    import torch

    info = source.tensors[one]
    if info != source.tensors[other]:
        return False
    for start in range(0, info.shape[0], COMPARED_ROWS):
        stop = min(start + COMPARED_ROWS, info.shape[0])
        a, b = source.read_rows(one, start, stop), source.read_rows(other, start, stop)
        if not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
            return False
    return True
