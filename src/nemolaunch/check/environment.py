"""Environment variables given to a job: presets exist, and names and values are valid."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator

from nemolaunch.check.support import error, fix, flag
from nemolaunch.findings import Finding, Fix
from nemolaunch.job.env_presets import PRESETS, preset_values
from nemolaunch.resolve import Resolved

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the names of presets, and the form NAME=VALUE or NAME of variables."""
    launch = resolved.job.launch
    for name in launch.env_preset:
        if name not in PRESETS:
            near = difflib.get_close_matches(name, PRESETS, n=2)
            others = tuple(n for n in launch.env_preset if n != name)
            yield error(
                "env-preset",
                f"{flag('env_preset')} {name!r} is not one of {', '.join(PRESETS)}",
                *(fix(env_preset=(*others, word)) for word in near),
                about="env_preset",
            )
    for word in launch.env:
        name, equals, value = word.partition("=")
        passed = not equals and _NAME.fullmatch(name)
        if passed and name in resolved.facts.passed:
            continue
        if passed or not _NAME.fullmatch(name) or not (value.isprintable() or not value):
            why = "is not set in this shell: export it, or give NAME=VALUE"
            yield error(
                "env-variable",
                f"{flag('env')} {word!r} {why if passed else 'is not of the form NAME=VALUE, or NAME, on one line'}",
                fix(env=tuple(w for w in launch.env if w != word)),
                about="env",
            )


def variables(resolved: Resolved) -> dict[str, str]:
    """Return the job's variables: exported ones override presets, and `--env` overrides both."""
    launch = resolved.job.launch
    given = dict(word.split("=", 1) for word in launch.env if "=" in word)
    return {**preset_values(launch.env_preset), **resolved.facts.exported, **given}


def without_variables(resolved: Resolved, names: Collection[str]) -> tuple[Fix, ...]:
    """Return the fix that drops these variables; nothing if one of them is exported in the shell."""
    launch = resolved.job.launch
    if any(name in resolved.facts.exported for name in names):
        return ()
    changes = {
        "env": tuple(word for word in launch.env if word.partition("=")[0] not in names),
        "env_preset": tuple(
            name for name in launch.env_preset if not preset_values((name,)).keys() & set(names)
        ),
    }
    return (fix(**{name: kept for name, kept in changes.items() if kept != getattr(launch, name)}),)
