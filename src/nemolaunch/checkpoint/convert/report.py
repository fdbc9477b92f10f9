"""The report of a conversion, saved next to its result."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.check import Check
from nemolaunch.system.atomic_files import write_text

ENDING = ".conversion.json"


def path_for(output: Path) -> Path:
    """Return the path of the report of a conversion to `output`."""
    return output.with_name(output.name + ENDING)


def content(about: dict[str, Any], checks: Sequence[Check], seconds: dict[str, float]) -> dict[str, Any]:
    """Return the report: what was converted, each check with its differences, and the verdict."""
    passed = all(check.passed for check in checks)
    return {
        "verdict": ("passed" if passed else "failed") if checks else "not verified",
        **about,
        "checks": {check.name: check.as_json() for check in checks},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "nemolaunch": version("nemolaunch"),
    }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report atomically."""
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
