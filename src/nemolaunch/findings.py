"""The one form in which a verdict about a job travels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Severity(str, Enum):
    """`ERROR` stops a launch; `WARNING` and `NOTE` do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


@dataclass(frozen=True, kw_only=True)
class Fix:
    """Flags to change, as `{"global_batch_size": 2032}`: field names of the job and their new values."""

    changes: dict[str, object]

    def __str__(self) -> str:
        def flag(name: str, value: object) -> str:
            long = "--" + name.replace("_", "-")
            if value is True:
                return long
            if value is False or value is None:
                return f"without {long}"
            return f"{long} {value}"

        return " ".join(flag(name, value) for name, value in self.changes.items())


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing wrong, or worth knowing, about a job.

    Attributes:
        code: stable identifier, e.g. `heads-by-tp`; an entry of the same name stands in docs/errors.md.
        severity: see `Severity`.
        message: one sentence with the values in it.
        rule: the rule that is broken, in general terms.
        fixes: alternatives, nearest first; each one alone removes this finding.
    """

    code: str
    severity: Severity
    message: str
    rule: str = ""
    fixes: tuple[Fix, ...] = field(default=())

    def __str__(self) -> str:
        text = f"{self.severity.value}[{self.code}]: {self.message}"
        if self.fixes:
            text += " Use " + ", or ".join(str(fix) for fix in self.fixes) + "."
        return text


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Most severe first, otherwise in the order found."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(f for f in findings if f.severity is Severity.ERROR)
