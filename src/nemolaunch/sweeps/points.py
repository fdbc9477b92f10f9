"""The points of a sweep: which fields of the job each run changes, and what it is called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.job import ALTERNATIVES, SECRETS, Job, spec_of
from nemolaunch.job.fields import FieldSpec
from nemolaunch.job.job import field_name
from nemolaunch.job.settings import merged
from nemolaunch.system.quantities import number, scaled

MOST_RUNS = 1000
LONGEST_NAME = 100
# The sweep decides these, or all of its runs share them
OF_THE_SWEEP = frozenset({"experiment", "output_dir", "executor", "detach", "array", "dependency"}) | SECRETS
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
Axes = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: of its folder within the sweep's.
        changes: field of the job → value.
    """

    name: str
    changes: dict[str, Any]

    def of(self, job: Job) -> Job:
        """Return the job with the changes of this point, which also replace the same quantity in another unit."""
        replaced = {n: None for group in ALTERNATIVES if set(group) & set(self.changes) for n in group}
        changes = {**replaced, **self.changes}
        if "set" in changes:
            changes["set"] = merged(job.get("set"), changes["set"])
        return job.with_values(**changes)


def parsed_axes(words: Iterable[str]) -> dict[str, list[Any]]:
    """Return the values of each `FIELD=VALUE,VALUE,…`, by name of the field.

    Raises:
        UsageError: listing all that is wrong with them.
    """
    axes: dict[str, list[Any]] = {}
    problems = []
    for word in words:
        try:
            name, values = _parsed(word)
            if name in axes:
                raise UsageError(
                    f"--sweep {word}: {spec_of(name).flag} is swept twice; name all values at once"
                )
            axes[name] = values
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems))
    return axes


def _parsed(word: str) -> tuple[str, list[Any]]:
    name, equals, values = word.partition("=")
    if not equals or not values:
        raise UsageError(f"--sweep {word}: write it as FIELD=VALUE,VALUE, such as lr=1e-3,3e-4")
    if re.fullmatch(r"[-+.\d\w]+\.\.[-+.\d\w]+(:\w+)?", values):
        raise UsageError(f"--sweep {word}: a range is for a search, with --sampler optuna:tpe --trials N")
    spec = swept_field(name)
    try:
        return spec.name, [of_word(spec, value) for value in values.split(",")]
    except UsageError as error:
        raise UsageError(f"--sweep {word}: {error}") from None


def swept_field(word: str) -> FieldSpec:
    """Return the field that a sweep may change. Raises UsageError if there is none, or it is the sweep's own."""
    spec = spec_of(field_name(word))
    if spec.name in OF_THE_SWEEP:
        raise UsageError(f"{spec.flag} is the same for all runs of a sweep, or set by it: it cannot be swept")
    return spec


def of_word(spec: FieldSpec, word: str) -> Any:
    """Return a value as a flag would read it. Raises UsageError if it has another type."""
    value: Any = word
    if word == "none" and spec.optional:
        value = None
    elif spec.kind is bool:
        value = _TRUTH.get(word.lower(), word)
    elif spec.kind is int and not spec.many:
        exact = scaled(word) if spec.scaled else word
        found = number(exact)
        value = int(found) if found is not None and found == found // 1 else exact
    elif spec.many:
        value = word.split()
    return spec.checked(value)


def grid(axes: Axes) -> list[Point]:
    """Return all combinations of the values; the last axis changes fastest.

    Raises:
        UsageError: there are none, two are the same, or there are too many.
    """
    found = {swept_field(name).name: list(values) for name, values in axes.items()}
    if not found or not all(found.values()):
        raise UsageError("a sweep needs values: --sweep FIELD=VALUE,VALUE, or --sweep-list FILE")
    num = 1
    for values in found.values():
        num *= len(values)
    if num > MOST_RUNS:
        raise UsageError(f"the sweep has {num:,} runs, more than {MOST_RUNS:,}; sweep fewer values")
    return named(dict(zip(found, values, strict=True)) for values in itertools.product(*found.values()))


def listed(path: Path, rows: Any) -> list[Point]:
    """Return the points of a list file: a YAML or JSON list with the flags of each run.

    Raises:
        UsageError: listing what is wrong with its rows.
    """
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and row for row in rows):
        raise UsageError(
            f"--sweep-list {path} must be a list with the flags of each run, like `- {{lr: 1e-3}}`"
        )
    if len(rows) > MOST_RUNS:
        raise UsageError(f"--sweep-list {path} has {len(rows):,} runs, more than {MOST_RUNS:,}")
    changes, problems = [], []
    for i, row in enumerate(rows, 1):
        try:
            specs = {swept_field(str(word)): value for word, value in row.items()}
            changes.append(
                {s.name: of_word(s, v) if isinstance(v, str) else s.checked(v) for s, v in specs.items()}
            )
        except UsageError as error:
            problems.append(f"run {i}: {error}")
    if problems:
        raise UsageError(f"--sweep-list {path}: " + "; ".join(problems))
    return named(changes)


def named(changes: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Return points with distinct names, which say their values, so that a sweep that grows keeps its runs.

    Raises:
        UsageError: two runs are the same.
    """
    rows = [_checked(row) for row in changes]
    names = ["_".join(f"{_short(name)}-{_word(value)}" for name, value in row.items()) for row in rows]
    for i, row in enumerate(rows):
        if row in rows[:i]:
            shown = ", ".join(f"{spec_of(n).flag} {v}" for n, v in row.items())
            raise UsageError(f"two runs of the sweep are the same: {shown}")
    if len({*names}) < len(names) or max(map(len, names)) > LONGEST_NAME:
        width = len(str(len(names)))
        names = [f"{i:0{width}}-{name[: LONGEST_NAME // 2]}".rstrip("-._") for i, name in enumerate(names, 1)]
    return [Point(name, row) for name, row in zip(names, rows, strict=True)]


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    return {spec.name: spec.checked(value) for spec, value in ((swept_field(n), v) for n, v in row.items())}


def _short(name: str) -> str:
    """Return the name of a field as in names of runs: its short form, if that has several letters."""
    short = (spec_of(name).short or "").lstrip("-")
    return "model" if name == "model_name" else short if len(short) > 1 else name.replace("_", "-")


def _word(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:g}".replace("e+", "e")  # a name has no +, and would say e-
    if isinstance(value, (list, tuple)):
        value = "-".join(map(str, value))
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        value = Path(value).stem
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value), flags=re.ASCII).strip("-.") or "none"
