"""Findings: what is wrong with a job, or worth knowing about it, and how to fix it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class Severity(str, Enum):
    """Severity of a finding: `ERROR` prevents the launch; `WARNING` and `NOTE` do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def _word(value: object) -> str:
    """Return a value as typed in a shell, quoted where necessary."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    return " ".join(shlex.quote(v) if isinstance(v, str) else str(v) for v in values)


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A set of flags to change together.

    Attributes:
        changes: field names of the job and their new values, e.g. `{"global_batch_size": 2032}`.
        flags: command-line spelling of these fields where it is not `--global-batch-size` and the like.
        negated: fields that are turned off with a flag such as `--no-overlap-grad-reduce`; others are turned off
            by dropping their flag.
    """

    changes: dict[str, object]
    flags: Mapping[str, str] = field(default_factory=dict, compare=False)
    negated: Collection[str] = field(default=(), compare=False)

    def __str__(self) -> str:
        """Return the fix as advice: `use -TP 4`, `drop --fp8`, or both."""
        use, drop = [], []
        for name, value in self.changes.items():
            flag = self.flags.get(name, "--" + name.replace("_", "-"))
            if value is False and name in self.negated:
                use.append("--no-" + flag.removeprefix("--"))
            elif value is None or value is False or value == ():
                drop.append(flag)
            else:
                use.append(flag if value is True else f"{flag} {_word(value)}")
        parts = [f"use {' '.join(use)}"] if use else []
        parts += [f"drop {', '.join(drop)}"] if drop else []
        return " and ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem with a job, or something worth knowing about it.

    Attributes:
        code: stable identifier, e.g. `heads-by-tp`; docs/errors.md has an entry of the same name.
        severity: see `Severity`.
        message: one sentence that contains the values, without a full stop.
        rule: the rule that is broken, in general terms.
        fixes: alternatives, nearest first; each one alone resolves this finding.
        about: the job's field that the message begins with; fixes that change only this field show just the value.
        forced: True for an error that `--force` turned into a warning.
    """

    code: str
    severity: Severity
    message: str
    rule: str = ""
    fixes: tuple[Fix, ...] = ()
    about: str = ""
    forced: bool = False

    def __str__(self) -> str:
        word = f"{self.severity.value}, forced" if self.forced else self.severity.value
        return f"{word}[{self.code}]: {self.message}{self._advice()}"

    def _advice(self) -> str:
        if not self.fixes:
            return ""
        if self.about and all(tuple(fix.changes) == (self.about,) for fix in self.fixes):
            values = [fix.changes[self.about] for fix in self.fixes]
            if not any(value is None or isinstance(value, bool) or value == () for value in values):
                return "; use " + " or ".join(map(_word, values))
        return "; " + ", or ".join(map(str, self.fixes))

    def as_values(self) -> dict[str, object]:
        """Return the finding as JSON-serializable values."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "message": self.message,
            "rule": self.rule,
            "fixes": [dict(fix.changes) for fix in self.fixes],
            "forced": self.forced,
        }


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings sorted by severity, most severe first, otherwise in their original order."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that prevent a launch."""
    return tuple(f for f in findings if f.severity is Severity.ERROR)


def apply_force(findings: Iterable[Finding], codes: Collection[str]) -> tuple[Finding, ...]:
    """Return the findings with errors of these codes downgraded to warnings marked as forced."""
    return tuple(
        dataclasses.replace(f, severity=Severity.WARNING, forced=True)
        if f.code in codes and f.severity is Severity.ERROR
        else f
        for f in findings
    )
