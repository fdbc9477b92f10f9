"""The interpreter that trains with Megatron-Bridge: whether it exists, and which releases its environment has."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nemolaunch.job import Job

OWN_ENVIRONMENT = os.path.join(".venv-bridge", "bin", "python")


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """An interpreter, and the releases in its environment; None if they are not found there.

    Attributes:
        path: absolute.
        here: whether it is the one that runs this command.
        error: why it cannot be used, or None.
    """

    path: str
    here: bool = False
    error: str | None = None
    bridge: str | None = None
    megatron: str | None = None


def look_at_interpreter(job: Job) -> Interpreter:
    """Return the interpreter of `--python`, else that of `make install-bridge` if there is one, else this one."""
    return bridge_interpreter(job.launch.python)


def bridge_interpreter(given: str | None = None) -> Interpreter:
    """Return the interpreter that has Megatron-Bridge: the given one, else as `look_at_interpreter` finds it."""
    path = given or (OWN_ENVIRONMENT if os.path.exists(OWN_ENVIRONMENT) else sys.executable)
    path = os.path.abspath(os.path.expanduser(path))  # links stay: a virtual environment is found by them
    if path == os.path.abspath(sys.executable):
        found = {name: _installed_here(name) for name in ("megatron-bridge", "megatron-core")}
        return Interpreter(
            path=path, here=True, bridge=found["megatron-bridge"], megatron=found["megatron-core"]
        )
    if not os.path.exists(path):
        return Interpreter(path=path, error="it does not exist")
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        return Interpreter(path=path, error="it is not an executable file")
    prefix = Path(path).parents[1]
    return Interpreter(
        path=path, bridge=_installed(prefix, "megatron_bridge"), megatron=_installed(prefix, "megatron_core")
    )


def _installed_here(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _installed(prefix: Path, package: str) -> str | None:
    """Return the release of a package below a prefix, by the name of the folder of its metadata.

    The interpreter is not started: planning answers at once, and starts nothing of an environment it only looks at.
    """
    for folder in ("site-packages", "dist-packages"):
        for found in sorted(prefix.glob(f"lib*/python3*/{folder}/{package}-*.dist-info")):
            return found.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return None
