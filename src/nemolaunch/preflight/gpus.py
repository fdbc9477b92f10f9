"""What nvidia-smi says about the GPUs of this node, before and during the matrix products.

The fields are queried in groups: a driver that does not know a field refuses the whole query, and older drivers call
what limits the clocks `clocks_throttle_reasons`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from nemolaunch.preflight.rows import Gpu
from nemolaunch.system.commands import answers

TIMEOUT_S = 30.0
IDLE = "index,uuid,name,driver_version,memory.used,clocks.max.sm"
ECC = "index,ecc.errors.uncorrected.volatile.total"
ROWS = "index,remapped_rows.failure,remapped_rows.pending"
CLOCKS = "index,clocks.sm"
REASONS = ("index,clocks_event_reasons.active", "index,clocks_throttle_reasons.active")


def idle() -> tuple[Gpu, ...]:
    """Return the job's GPUs on this node before it uses them; none where there is no nvidia-smi."""
    return visible(parse_idle(*_query(IDLE, ECC, ROWS)), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(gpus: Sequence[Gpu], named: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names by index or UUID, whole or abbreviated; all if it is not set."""
    if named is None:
        return tuple(gpus)
    words = [word.strip() for word in named.split(",") if word.strip()]
    return tuple(
        gpu
        for gpu in gpus
        if any(word == str(gpu.index) or (gpu.uuid and gpu.uuid.startswith(word)) for word in words)
    )


def under_load(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return the GPUs with their clocks at this moment, and with what limits those."""
    return parse_load(gpus, *_query(CLOCKS, *REASONS)) if gpus else ()


def _query(*fields: str) -> list[str | None]:
    commands = [["nvidia-smi", f"--query-gpu={each}", "--format=csv,noheader,nounits"] for each in fields]
    return answers(*commands, timeout_s=TIMEOUT_S)


def parse_idle(idle: str | None, ecc: str | None, rows: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs that the answers to `IDLE`, `ECC` and `ROWS` describe."""
    errors, remapped = _table(ecc), _table(rows)
    found = []
    for index, words in _table(idle).items():
        failed, pending = (*remapped.get(index, ()), "", "")[:2]
        found.append(
            Gpu(
                index=index,
                uuid=words[0],
                name=words[1],
                driver=words[2],
                memory_used_bytes=_scaled(words[3], 2**20),
                max_clock_mhz=_scaled(words[4]),
                uncorrected_errors=_scaled(errors.get(index, [""])[0]),
                remap_failed=_switch(failed),
                remap_pending=_switch(pending),
            )
        )
    return tuple(found)


def parse_load(
    gpus: Sequence[Gpu], clocks: str | None, reasons: str | None, old_reasons: str | None
) -> tuple[Gpu, ...]:
    """Return the GPUs with what the answers to `CLOCKS` and to one of `REASONS` say."""
    now, masks = _table(clocks), _table(reasons) or _table(old_reasons)
    return tuple(
        dataclasses.replace(
            gpu,
            clock_mhz=_scaled(now.get(gpu.index, [""])[0]),
            reasons=_mask(masks.get(gpu.index, [""])[0]),
        )
        for gpu in gpus
    )


def _table(answer: str | None) -> dict[int, list[str]]:
    """Return the other fields of each line by the GPU's index."""
    rows = [[word.strip() for word in line.split(",")] for line in (answer or "").splitlines()]
    return {int(row[0]): row[1:] for row in rows if row[0].isdigit()}


def _scaled(word: str, unit: int = 1) -> int | None:
    return int(word) * unit if word.isdigit() else None


def _switch(word: str) -> bool | None:
    """Return what `Yes`, `No`, `1` or `0` says; None for `[N/A]`."""
    return {"yes": True, "1": True, "no": False, "0": False}.get(word.lower())


def _mask(word: str) -> int | None:
    try:
        return int(word, 16)
    except ValueError:
        return None
