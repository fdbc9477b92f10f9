"""The site's set-up script that a Slurm job sources."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from nemolaunch.system.path_hints import nearest

_TIMEOUT_S = 5


@dataclass(frozen=True, kw_only=True)
class SetupFile:
    """A set-up script.

    Attributes:
        path: absolute.
        error: why it cannot be used, or None.
        instead: an existing path that may have been meant.
    """

    path: str
    error: str | None = None
    instead: str | None = None


def look_at_setup(word: str) -> SetupFile:
    """Return the script, after bash has parsed it without running it."""
    path = os.path.abspath(os.path.expanduser(word))
    if not os.path.isfile(path):
        why = "it is a folder" if os.path.isdir(path) else "the file does not exist"
        instead = nearest(word)
        return SetupFile(path=path, error=why, instead=instead and os.path.abspath(instead))
    if not os.access(path, os.R_OK):
        return SetupFile(path=path, error="it cannot be read")
    return SetupFile(path=path, error=_syntax_error(path))


def _syntax_error(path: str) -> str | None:
    try:
        parsed = subprocess.run(
            ["bash", "-n", path],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if not parsed.returncode:
        return None
    lines = parsed.stderr.strip().splitlines() or ["bash cannot parse it"]
    return lines[0].removeprefix(f"{path}: ")
