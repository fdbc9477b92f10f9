"""The flags about findings: which errors to ignore, and how findings are printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding


def add_force_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--force CODE`, which may be repeated."""
    parser.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="CODE",
        help="ignore the error with this code; may be repeated (docs/errors.md)",
    )


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, short for `--format json`."""
    parser.add_argument(
        "--json", action="store_const", dest="format", const="json", default=argparse.SUPPRESS,
        help="the same as --format json",
    )  # fmt: skip


def forced_codes(given: dict[str, Any]) -> tuple[str, ...]:
    """Take `--force` out of the flags and return its codes.

    Raises:
        UsageError: no finding has such a code; the message suggests the nearest ones.
    """
    import difflib

    from nemolaunch.check import RULES

    codes = tuple(dict.fromkeys(given.pop("force")))
    for code in codes:
        if code not in RULES:
            near = difflib.get_close_matches(code, RULES, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(f"--force: no finding has the code {code!r}{hint}")
    return codes


def findings_json(findings: Iterable[Finding]) -> str:
    """Return findings as JSON: one object with a list, most severe first."""
    listed = [finding.as_values() for finding in findings]
    return json.dumps({"findings": listed}, indent=1, ensure_ascii=False) + "\n"
