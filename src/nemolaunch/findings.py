"""The one form in which a verdict about a job travels."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class Severity(str, Enum):
    """`ERROR` stops a launch; `WARNING` and `NOTE` do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def _word(value: object) -> str:
    """A value as it is typed: in quotes where a shell would take it apart."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    return " ".join(shlex.quote(v) if isinstance(v, str) else str(v) for v in values)


@dataclass(frozen=True, kw_only=True)
class Fix:
    """Flags to change.

    Attributes:
        changes: field names of the job and their new values, as `{"global_batch_size": 2032}`.
        flags: how these fields are spelt on the command line, where not as `--global-batch-size`.
        said: fields whose `False` has to be said, as `--no-overlap-grad-reduce`; others are left out.
    """

    changes: dict[str, object]
    flags: Mapping[str, str] = field(default_factory=dict, compare=False)
    said: Collection[str] = field(default=(), compare=False)

    def __str__(self) -> str:
        """As advice: `use -TP 4`, `leave out --fp8`, or both."""
        use, leave_out = [], []
        for name, value in self.changes.items():
            flag = self.flags.get(name, "--" + name.replace("_", "-"))
            if value is False and name in self.said:
                use.append("--no-" + flag.removeprefix("--"))
            elif value is None or value is False or value == ():
                leave_out.append(flag)
            else:
                use.append(flag if value is True else f"{flag} {_word(value)}")
        parts = [f"use {' '.join(use)}"] if use else []
        parts += [f"leave out {', '.join(leave_out)}"] if leave_out else []
        return " and ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing wrong, or worth knowing, about a job.

    Attributes:
        code: stable identifier, e.g. `heads-by-tp`; an entry of the same name stands in docs/errors.md.
        severity: see `Severity`.
        message: one sentence with the values in it, without a full stop.
        rule: the rule that is broken, in general terms.
        fixes: alternatives, nearest first; each one alone removes this finding.
        about: the job's field that the message begins with; fixes of it alone are shown by value.
        forced: whether it would stop the launch, had it not been let pass.
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
                return ": use " + " or ".join(map(_word, values))
        return ": " + ", or ".join(map(str, self.fixes))

    def as_values(self) -> dict[str, object]:
        """The finding as JSON can hold it."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "message": self.message,
            "rule": self.rule,
            "fixes": [dict(fix.changes) for fix in self.fixes],
            "forced": self.forced,
        }


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Most severe first, otherwise in the order found."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that stop a launch."""
    return tuple(f for f in findings if f.severity is Severity.ERROR)


def let_pass(findings: Iterable[Finding], codes: Collection[str]) -> tuple[Finding, ...]:
    """The same findings, errors with one of these codes turned into warnings that say so."""
    return tuple(
        dataclasses.replace(f, severity=Severity.WARNING, forced=True)
        if f.code in codes and f.severity is Severity.ERROR
        else f
        for f in findings
    )
