"""Reads a run's metrics file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

# how figures stand in the file for which JSON has no numbers
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; a torn line of a killed run is passed over. No file: no rows."""
    return list(rows(path))


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file one by one, for files too long to hold. No file: no rows."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError:
        return
    with file:
        yield from _rows(file)


def batches(path: Path, lines: int = 4096) -> Iterator[list[dict[str, Any]]]:
    """The rows of a long metrics file, many at a time, with "nan", "inf" and "-inf" left as texts."""
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
            yield [row for row in parsed if isinstance(row, dict) and "step" in row]


def tail_rows(path: Path, most_bytes: int = 65536) -> list[dict[str, Any]]:
    """The last rows of a metrics file, however long it is. No file: no rows."""
    return list(_rows(_tail(path, most_bytes)))


def recent_events(path: Path, most_bytes: int = 4 << 20) -> list[dict[str, Any]]:
    """Rows with an `event` among the last thousands of rows. No file: no rows."""
    return list(_rows(line for line in _tail(path, most_bytes) if line.startswith(b'{"event"')))


def _tail(path: Path, most_bytes: int) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most_bytes))
            return file.read().splitlines()
    except OSError:
        return []


def current(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that count: what a run resumed from an earlier step did again is there once, as redone."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        if row.get("event") == "start":
            kept = [old for old in kept if old["step"] <= row["step"]]
        kept.append(row)
    return kept


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for row in _parsed(lines):
        if isinstance(row, dict) and "step" in row:
            yield _with_numbers(row)


def _parsed(lines: Iterable[bytes]) -> Iterator[Any]:
    loads = _parser()
    for line in lines:
        with suppress(ValueError):
            yield loads(line)


def _with_numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: NOT_FINITE.get(value, value) if type(value) is str else value for key, value in row.items()}


def _parser() -> Callable[[bytes], Any]:
    """orjson's where it is installed: several times faster, which counts in files of a million rows."""
    try:
        import orjson
    except ImportError:
        return json.loads
    return orjson.loads


class MetricsFollower:
    """Hands out the rows that are appended to a metrics file after this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def new_rows(self) -> list[dict[str, Any]]:
        """Rows since the last call, whole lines only."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                new = file.read()
        except OSError:
            return []
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return list(_rows(lines))
