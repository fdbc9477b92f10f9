"""`nemolaunch diff RUN_A RUN_B`: show how the plans of two runs differ, and what each run achieved."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError
from nemolaunch.job.settings import spread
from nemolaunch.observe.results import results
from nemolaunch.run.folder import RunDir
from nemolaunch.system.json_files import read_json

# Parts of a plan that describe the job, in display order. The rest follows from them.
PARTS = (
    "model", "recipe", "values", "architecture", "overrides", "blend", "tokenizer", "device", "world_size",
    "environment", "versions",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch diff`."""
    diff = Parser(
        prog="nemolaunch diff",
        example="nemolaunch diff runs/baseline runs/higher-lr",
        description="Show the differences between two runs, in flags, model, data, environment and versions, and the "
        "results of both. Exit code 0 if the settings are the same, 1 if they differ.",
    )
    diff.add_argument("run_a", type=Path, metavar="RUN_A", help="run folder or plan.json")
    diff.add_argument("run_b", type=Path, metavar="RUN_B", help="run folder or plan.json")
    diff.add_argument("--json", action="store_true", help="print JSON")
    return diff


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print the differences. Return exit code 1 if there are some, like diff(1)."""
    given = parser().parse_args(argv)
    found = differences(_read(given.run_a), _read(given.run_b))
    outcome = outcomes(given.run_a, given.run_b)
    if given.json:
        rows = [*found, *((f"result.{name}", a, b) for name, a, b in outcome)]
        print(json.dumps([dict(zip(("name", "a", "b"), row, strict=True)) for row in rows], indent=1))
        return 1 if found else 0
    if not found:
        print("the two runs have the same plan")
    if found or outcome:
        head = ("", str(given.run_a), str(given.run_b))
        results = [("", "", ""), ("results", "", ""), *map(_shown, outcome)] if outcome else []
        print("\n".join(_table([head, *map(_shown, found), *results])))
    return 1 if found else 0


def _read(path: Path) -> dict[str, Any]:
    file = RunDir(path).plan if path.is_dir() else path
    try:
        content = read_json(file)
    except OSError as error:
        raise UsageError(f"{path} is not a run folder: {file.name}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{file} is not a plan: {error}") from None
    if not isinstance(content, dict) or "values" not in content:
        raise UsageError(f"{file} is not a plan")
    return content


def outcomes(a: Path, b: Path) -> list[tuple[str, Any, Any]]:
    """Return (name, value in `a`, value in `b`) of the results of two runs; none for files outside a run folder."""
    runs = [RunDir(path if path.is_dir() else path.parent) for path in (a, b)]
    if not all(run.metrics.is_file() for run in runs):
        return []
    one, other = map(results, runs)
    return [(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (name, value in `a`, value in `b`) of everything that describes the job and differs."""
    found = []
    for part in PARTS:
        one, other = a.get(part), b.get(part)
        if part == "values":
            one, other = spread(a["values"]), spread(b["values"])
        if isinstance(one, dict) and isinstance(other, dict):
            names = [*one, *(name for name in other if name not in one)]
            pairs = [
                (name if part == "values" else f"{part}.{name}", one.get(name), other.get(name))
                for name in names
            ]
        else:
            pairs = [(part, one, other)]
        found += [pair for pair in pairs if pair[1] != pair[2]]
    return found


def _shown(row: tuple[str, Any, Any]) -> tuple[str, str, str]:
    name, a, b = row
    return name, _word(a), _word(b)


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [min(60, max(len(row[column]) for row in rows)) for column in range(3)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
