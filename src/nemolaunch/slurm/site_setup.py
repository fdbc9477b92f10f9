"""The site's own commands in the batch script: modules, a set-up script and single commands, before the ranks start.

They run in the shell of the batch script, so that the ranks inherit what they export. What they change of the shell
itself is restored: options, traps, and Slurm's own variables, which some sites' modules set.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from nemolaunch.job import Launch

_FUNCTIONS = Path(__file__).with_name("site_setup.sh")


def site_setup(launch: Launch, exports: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines of the batch script; none if the job has no such commands.

    Args:
        exports: lines that export the variables which win over what the commands export.
    """
    steps = [*_modules(launch), *_script(launch)]
    steps += [(command, f"eval {shlex.quote(command)}") for command in launch.pre_commands]
    if not steps:
        return ()
    lines = [_FUNCTIONS.read_text(encoding="utf-8").rstrip("\n")]
    for shown, command in steps:
        lines += [f"site_step={shlex.quote(shown)}", command, "site_check $?"]
    return (
        *lines,
        "site_step=",
        'eval "$site_options"',
        "trap on_exit EXIT",
        "trap : TERM USR1 USR2",
        "site_forget_slurm",
        'eval "$site_slurm"',
        *exports,
    )


def _modules(launch: Launch, find: str = "find_modules; ") -> list[tuple[str, str]]:
    if not launch.modules:
        return []
    load = shlex.join(["module", "load", *launch.modules])
    return [(load, f"{find}{load}")]


def _script(launch: Launch) -> list[tuple[str, str]]:
    if launch.setup is None:
        return []
    source = f". {shlex.quote(launch.setup)}"
    return [(source, source)]


def trial(launch: Launch) -> str | None:
    """Return a script that loads the modules and sources the set-up script, to try them; None if there are none."""
    steps = [*_modules(launch), *_script(launch)]
    if not steps:
        return None
    functions = _FUNCTIONS.read_text(encoding="utf-8")
    return "\n".join([functions, *(line for _, command in steps for line in (command, "site_check $?"))])


def plain_setup(launch: Launch) -> list[str]:
    """Return the commands alone, for a batch script that ends at the first one that fails (`set -e`)."""
    return [command for _, command in (*_modules(launch, ""), *_script(launch))] + list(launch.pre_commands)
