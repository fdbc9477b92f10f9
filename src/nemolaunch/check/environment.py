"""Variables a job is given: each has a name and a value that reach the ranks whole."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.variables import PRESETS

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Presets there are, and NAME=VALUE."""
    launch = resolved.job.launch
    for name in launch.env_preset:
        if name not in PRESETS:
            near = difflib.get_close_matches(name, PRESETS, n=2)
            others = tuple(n for n in launch.env_preset if n != name)
            yield error(
                "env-preset",
                f"{flag('env_preset')} {name!r} is none of {', '.join(PRESETS)}",
                *(fix(env_preset=(*others, word)) for word in near),
                about="env_preset",
            )
    for word in launch.env:
        name, equals, value = word.partition("=")
        if not equals or not _NAME.fullmatch(name) or not (value.isprintable() or not value):
            yield error(
                "env-variable",
                f"{flag('env')} {word!r} is not a variable as NAME=VALUE on one line",
                fix(env=tuple(w for w in launch.env if w != word)),
                about="env",
            )
