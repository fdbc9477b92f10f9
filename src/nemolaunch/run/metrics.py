"""Read a run's metrics file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from nemolaunch.run.folder import RunDir

MIGRATED = "migrated"  # the event between what a run has trained with one framework and with another
UPLOAD = "upload"  # the event that uploads began to fail, or succeed again; also after the end of training
MOST_STEPS = 2**53
# Events that every run has: nothing that a reader must be told
ROUTINE_EVENTS = frozenset({"start", "end", "checkpoint", "fed", "stream", "phase"})
KINDS: dict[str, type | tuple[type, ...]] = {
    "event": str,
    "text": str,
    "environment": dict,
    "samples_by_prefix": list,
    "samples": (int, float, list),
    "tasks": dict,
    "ppl_of": dict,
    "mlm_of": dict,
}
ALWAYS_NUMBERS = frozenset(
    {"time", "max_steps", "seconds", "restarts", "tokens", "step_time_s", "tokens_per_s"}
)
MEASURED = frozenset({"loss", "val_loss", "lr", "grad_norm"})
# how the file spells values that JSON cannot represent as numbers
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def read(path: Path) -> list[dict[str, Any]]:
    """Read all rows of a metrics file, skipping incomplete lines of a killed run; none if it does not exist."""
    return list(rows(path))


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows to a new metrics file."""
    spelled = {math.inf: "inf", -math.inf: "-inf"}
    with open(path, "x", encoding="utf-8") as file:
        for row in rows:
            safe = {
                key: ("nan" if value != value else spelled.get(value, value))
                if type(value) is float
                else value
                for key, value in row.items()
            }
            file.write(json.dumps(safe, ensure_ascii=False) + "\n")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metrics file one by one, for files too long to hold in memory."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError:
        return
    with file:
        yield from _rows(file)


def batches(path: Path, lines: int = 4096) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a long metrics file in batches, with "nan", "inf" and "-inf" left as strings."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError:
        return
    loads = _parser()
    with file:
        while chunk := list(islice(file, lines)):
            try:
                parsed = [loads(line) for line in chunk]
            except ValueError:
                parsed = list(_parsed(chunk))
            yield [_sound(row) for row in parsed if _is_row(row)]


def tail_rows(path: Path, max_bytes: int = 65536) -> list[dict[str, Any]]:
    """Read the last rows of a metrics file, however long it is; none if it does not exist."""
    return list(_rows(_tail(path, max_bytes)))


def recent_events(path: Path, max_bytes: int = 4 << 20) -> list[dict[str, Any]]:
    """Read the rows with an `event` among the last thousands; none if the file does not exist."""
    return list(_rows(line for line in _tail(path, max_bytes) if line.startswith(b'{"event"')))


def last_validation(path: Path, max_bytes: int = 4 << 20) -> dict[str, Any]:
    """Read the row of the latest validation among the last thousands; empty if there is none."""
    lines = [line for line in _tail(path, max_bytes) if b'"val_loss"' in line]
    return next((row for row in _rows(reversed(lines)) if "val_loss" in row), {})


def last_step(path: Path) -> int | None:
    """Return the step of the last row; None if there is none."""
    rows = tail_rows(path)
    return int(rows[-1]["step"]) if rows else None


def _tail(path: Path, max_bytes: int) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read().splitlines()
    except OSError:
        return []


def current(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop rows of steps that a later attempt repeated."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        if row.get("event") == "start":
            kept = [old for old in kept if old["step"] <= row["step"]]
        kept.append(row)
    return kept


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for row in _parsed(lines):
        if _is_row(row):
            yield _with_numbers(_sound(row))


def _parsed(lines: Iterable[bytes]) -> Iterator[Any]:
    loads = _parser()
    for line in lines:
        with suppress(ValueError):
            yield loads(line)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] <= MOST_STEPS


def _sound(row: dict[str, Any]) -> dict[str, Any]:
    """Drop values that cannot be what their key says, such as those of a damaged file."""
    if "event" not in row and all(type(value) in (int, float) for value in row.values()):
        return row
    return {key: value for key, value in row.items() if _may_be(key, value)}


def _may_be(key: str, value: Any) -> bool:
    kind = KINDS.get(key)
    if kind is not None:
        return value is None or isinstance(value, kind)
    if isinstance(value, str):
        return key not in ALWAYS_NUMBERS and (key not in MEASURED or value in NOT_FINITE)
    return not (key in ALWAYS_NUMBERS or key in MEASURED) or type(value) in (int, float)


def _with_numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: NOT_FINITE.get(value, value) if type(value) is str else value for key, value in row.items()}


def _parser() -> Callable[[bytes], Any]:
    """Return orjson's parser if installed: several times faster, which matters for a million rows."""
    try:
        import orjson
    except ImportError:
        return json.loads
    return orjson.loads


class RunFollower:
    """Reader of what a run records after this object was created: phases of its start, then its metrics."""

    def __init__(self, run: RunDir) -> None:
        self._files = [MetricsFollower(path) for path in (run.phases, run.metrics)]

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows added since the last call."""
        return [row for file in self._files for row in file.new_rows()]


class MetricsFollower:
    """Reader of the rows appended to a metrics file after this object was created."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows added since the last call, complete lines only."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                new = file.read()
        except OSError:
            return []
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return list(_rows(lines))
