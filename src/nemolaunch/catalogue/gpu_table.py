"""GPUs as data: memory, peaks, bandwidths, each with the vendor's document it comes from."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.catalogue.names import did_you_mean
from nemolaunch.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. Peaks are dense (no structured sparsity), matrix units, accumulation in fp32.

    `None` means that the hardware has no such format or link.

    Attributes:
        name: as given to `--gpu`.
        aliases: other names for it.
        memory_bytes: memory on the data sheet, its GB read as 2**30 bytes as drivers report it. Drivers
            keep up to 1 % for themselves; ECC on GDDR6 (L40S, A6000, A10) takes another 1/16.
        peak_bf16, peak_fp16, peak_tf32, peak_fp8: FLOP/s.
        memory_bandwidth: bytes/s.
        nvlink_bandwidth: bytes/s to other GPUs, both directions together.
        compute_capability: `(major, minor)`; `None` where it is not NVIDIA's.
        source: document the figures are from.
    """

    name: str
    aliases: tuple[str, ...]
    memory_bytes: int
    peak_bf16: float | None
    peak_fp16: float
    peak_tf32: float | None
    peak_fp8: float | None
    memory_bandwidth: float
    nvlink_bandwidth: float | None
    compute_capability: tuple[int, int] | None
    source: str


@functools.cache
def _table() -> dict[str, Gpu]:
    data = json.loads(Path(__file__).with_name("gpus.json").read_text(encoding="utf-8"))
    rows = {}
    for row in data["gpus"]:
        capability = row["compute_capability"]
        row["memory_bytes"] = row.pop("memory_gib") * 2**30
        row["aliases"] = tuple(row["aliases"])
        row["compute_capability"] = tuple(capability) if capability else None
        rows[row["name"]] = Gpu(**row)
    return rows


def gpus() -> tuple[Gpu, ...]:
    """All rows, oldest first."""
    return tuple(_table().values())


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().replace("nvidia", "") if c.isalnum())


def gpu(name: str) -> Gpu:
    """The row of that name or alias, in any case and punctuation.

    Raises:
        UsageError: there is none; says the nearest and lists all.
    """
    by_name = {_plain(alias): row for row in gpus() for alias in (row.name, *row.aliases)}
    found = by_name.get(_plain(name))
    if found:
        return found
    known = ", ".join(row.name for row in gpus())
    raise UsageError(f"--gpu: there is no GPU {name!r}.{did_you_mean(name, by_name)} Known: {known}.")


def gpu_seen(name: str) -> Gpu | None:
    """The row of a GPU as a driver or a cluster calls it, like `NVIDIA H100 80GB HBM3` or `nvidia_a100_80gb`."""
    words = re.sub(r"nvidia|tesla|geforce|_", " ", name.lower()).split()
    if not words:
        return None
    for word in (" ".join(words), "-".join(words[:2]), words[0], words[0].split("-")[0]):
        try:
            return gpu(word)
        except UsageError:
            continue
    return None
