"""Modules, a set-up script and commands of the site, which a Slurm job runs before its ranks start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, no_effect, shown, warning, without
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

FIELDS = ("modules", "setup", "pre_commands")
_MODULE = re.compile(r"[A-Za-z0-9_][\w.+/@:=~-]*", re.ASCII)


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that they can be used, and that something runs them."""
    launch = resolved.job.launch
    given = [name for name in FIELDS if resolved.job.get(name)]
    if given and launch.executor != "slurm":
        yield warning(
            "setup-local",
            f"{no_effect(given)} with {shown('executor', launch.executor)}, which starts ranks in "
            f"{'a container' if launch.engine else 'this environment'}",
            without(resolved, *given),
        )
        return
    yield from _words(resolved)
    setup = resolved.facts.setup
    if setup is not None and setup.error:
        yield error(
            "slurm-setup",
            f"{shown('setup', launch.setup)}: {setup.error}",
            *each("setup", [setup.instead] if setup.instead else []),
            about="setup",
        )


def _words(resolved: Resolved) -> Iterator[Finding]:
    launch = resolved.job.launch
    for module in launch.modules:
        if not _MODULE.fullmatch(module):
            yield error(
                "slurm-setup",
                f"{flag('modules')} {module!r} is not a module's name such as cuda/12.8",
                fix(modules=tuple(m for m in launch.modules if m != module)),
            )
    for command in launch.pre_commands:
        if not command.strip() or not command.isprintable():
            yield error(
                "slurm-setup",
                f"{flag('pre_commands')} {command!r} is not a command on one line; longer ones belong in a file for "
                f"{flag('setup')}",
                fix(pre_commands=tuple(c for c in launch.pre_commands if c != command)),
            )
    if launch.setup is not None and not launch.setup.isprintable():
        yield error("path-unprintable", f"{flag('setup')} {launch.setup!r} contains unprintable characters")
