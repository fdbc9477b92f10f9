"""What the process that is kept warm and the commands that use it must agree on."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nemolaunch.system.processes import VARIABLES
from nemolaunch.system.secret_values import name_is_secret, value_is_secret

# Variables of a terminal, a shell or a run: nothing that is imported looks at them
OWN = frozenset(
    (*VARIABLES, "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES", "TERM", "COLORTERM", "WINDOWID", "DISPLAY",
     "XDG_SESSION_ID")
)  # fmt: skip
OWN_PREFIXES = ("SSH_", "TMUX", "STY", "TERM_", "VTE_", "VSCODE_", "NEMOLAUNCH_")


def of_import(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that libraries may look at when they are imported, without secrets."""
    return {
        name: value
        for name, value in variables.items()
        if name not in OWN
        and not name.startswith(OWN_PREFIXES)
        and not name_is_secret(name, value)
        and not value_is_secret(value, name)
    }


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of the variables in which two environments differ for an import."""
    one, other = of_import(one), of_import(other)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def inherited() -> dict[str, str]:
    """Return what a process has from the one that started it, by words for it, besides variables and the umask."""
    limits = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})
    with suppress(OSError):
        return {
            "the niceness": str(os.getpriority(os.PRIO_PROCESS, 0)),
            "the CPUs": str(sorted(os.sched_getaffinity(0))),
            "the limits (ulimit)": str([resource.getrlimit(number) for number in limits]),
            "the groups": str(sorted(os.getgroups())),
            "the control group": Path("/proc/self/cgroup").read_text(),
            "the namespaces": str(sorted(os.readlink(path) for path in Path("/proc/self/ns").iterdir())),
        }
    return {}


def code_of(package: Path, python: str) -> str:
    """Return what changes with the code of this package, and with what an interpreter has installed."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found = path.stat()
        digest.update(f"{path.relative_to(package)} {found.st_mtime_ns} {found.st_size}\n".encode())
    for folder in sorted(Path(python).parent.parent.glob("lib/python3*/site-packages")):
        digest.update(f"{folder} {folder.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_mine(connection: socket.socket) -> bool:
    """Return whether a process of this user is at the other end."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.getuid())
