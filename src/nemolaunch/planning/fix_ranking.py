"""Ranking of alternative fixes: the one that leaves the fewest errors comes first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from nemolaunch.check import check
from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding, Fix, errors
from nemolaunch.resolve import Resolved, changed


def ordered(found: Iterable[Finding], resolved: Resolved) -> list[Finding]:
    """Return the findings with their fixes sorted by the errors they leave; ties keep their order."""
    return [
        dataclasses.replace(f, fixes=tuple(sorted(f.fixes, key=lambda fix: _errors_left(resolved, fix))))
        if len(f.fixes) > 1
        else f
        for f in found
    ]


def _errors_left(resolved: Resolved, fix: Fix) -> int:
    try:
        return len(errors(check(changed(resolved, fix.changes))))
    except UsageError:  # a GPU that is not in the catalogue
        return 0
