"""GPUs as data: memory, peak FLOP/s and bandwidths, each with the vendor document it comes from."""

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
    """A GPU model. Peaks are those of dense matrix units (no structured sparsity) with fp32 accumulation.

    `None` means that the hardware has no such format or link.

    Attributes:
        name: as given to `--gpu`.
        aliases: other names for it.
        memory_bytes: memory on the data sheet, with GB read as 2**30 bytes as drivers report it. Drivers reserve
            up to 1 %; ECC on GDDR6 (L40S, A6000, A10) takes another 1/16.
        peak_bf16, peak_fp16, peak_tf32, peak_fp8: FLOP/s.
        memory_bandwidth: bytes/s.
        nvlink_bandwidth: bytes/s to other GPUs, sum of both directions.
        compute_capability: `(major, minor)`; `None` if it is not an NVIDIA GPU.
        source: document that the figures come from.
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
    """Return all GPUs, oldest first."""
    return tuple(_table().values())


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().replace("nvidia", "") if c.isalnum())


def gpu(name: str) -> Gpu:
    """Return the GPU of this name or alias, ignoring case and punctuation.

    Raises:
        UsageError: there is none; the message names the nearest and lists all.
    """
    by_name = {_plain(alias): row for row in gpus() for alias in (row.name, *row.aliases)}
    found = by_name.get(_plain(name))
    if found:
        return found
    known = ", ".join(row.name for row in gpus())
    raise UsageError(f"--gpu: there is no GPU {name!r}.{did_you_mean(name, by_name)} Known: {known}.")


def gpu_seen(name: str) -> Gpu | None:
    """Return the GPU that a driver or cluster calls e.g. `NVIDIA H100 80GB HBM3` or `nvidia_a100_80gb`."""
    words = re.sub(r"nvidia|tesla|geforce|_", " ", name.lower()).split()
    if not words:
        return None
    for word in (" ".join(words), "-".join(words[:2]), words[0], words[0].split("-")[0]):
        try:
            return gpu(word)
        except UsageError:
            continue
    return None
