"""Generic resources as Slurm writes them: `gpu:h100:8(S:0-1),gpu:1g.10gb:7,shard:8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OUTSIDE_BRACKETS = re.compile(r",(?![^()]*\))")  # `gpu:a:2(IDX:0,3)` is one resource
_ITEM = re.compile(
    r"(?:gres[:/])?(?P<name>[A-Za-z]\w*)(?::(?P<type>\(null\)|[A-Za-z_][\w.+-]*|\d+g\.[\w.+]+))?"
    r"(?::(?P<count>\d+[kKmMgG]?))?(?:\([^()]*\))?",
    re.ASCII,
)
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}
# A MIG device: the compute and memory of its profile (`nvidia_a100_1g.10gb`, `1g.10gb+me`), or a name with `mig`
_SLICE = re.compile(r"(?:^|[^0-9a-z])\d+g\.\d+gb|(?:^|[^a-z])mig(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Gres:
    """One generic resource of a node or of a request.

    Attributes:
        name: of the resource, such as `gpu`.
        type: such as `h100`; empty if there is none.
    """

    name: str
    type: str = ""
    count: int = 1

    @property
    def is_slice(self) -> bool:
        """Whether it is a part of a GPU (MIG): NCCL connects whole GPUs only."""
        return self.name == "gpu" and _SLICE.search(self.type) is not None

    @property
    def is_gpu(self) -> bool:
        """Whether it is a whole GPU."""
        return self.name == "gpu" and not self.is_slice


def parse_gres(text: str) -> tuple[Gres, ...] | None:
    """Return the resources of a node or a request; None if the text is not in Slurm's form NAME[:TYPE][:COUNT]."""
    if text.strip() in ("", "(null)", "N/A"):
        return ()
    found = []
    for word in _OUTSIDE_BRACKETS.split(text.strip()):
        match = _ITEM.fullmatch(word.strip())
        if match is None:
            return None
        kind, count = match["type"] or "", match["count"] or "1"
        unit = _UNITS.get(count[-1].lower(), 1)
        number = int(count.rstrip("kKmMgG")) * unit
        found.append(Gres(name=match["name"], type="" if kind == "(null)" else kind, count=number))
    return tuple(found)


def gpu_types(gres: tuple[Gres, ...]) -> tuple[str, ...]:
    """Return the types of the whole GPUs among resources, in order."""
    return tuple(dict.fromkeys(each.type for each in gres if each.is_gpu and each.type))
