"""How this package was installed, and therefore what to type to add what is missing."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path

PACKAGE = "nemolaunch"
SOURCE = Path(__file__).parents[3]  # of a clone


def is_clone() -> bool:
    """Return whether the code that runs lies in a clone, in which `make install` works."""
    return (SOURCE / "Makefile").is_file() and (SOURCE / "constraints.txt").is_file()


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra of pyproject.toml, such as `tokens`, to the environment of this command.

    A wheel or a repository is named as it was when this package was installed: no index has to have it.
    """
    if is_clone():
        environment = SOURCE / ".venv"
        activate = f"`source {environment}/bin/activate`"
        if environment.is_dir() and Path(sys.prefix).resolve() != environment.resolve():
            return f"{activate}, the environment of `make install`"
        return f"`make install` in {SOURCE}, then {activate}"
    origin = _origin()
    return f"{sys.executable} -m pip install '{PACKAGE}[{extra}]{f' @ {origin}' if origin else ''}'"


def how_to_repair() -> str:
    """Return the command that replaces releases for training that do not work together."""
    return "pip install -c constraints.txt -e '.[train]'" if is_clone() else how_to_install("train")


def extra_with(package: str) -> str:
    """Return the smallest extra that has a package."""
    for extra in ("tokens", "train", "eval", "sweeps", "optuna"):
        if any(_name(word) == _normal(package) and f'"{extra}"' in word for word in _requirements()):
            return extra
    return "train"


def _requirements() -> list[str]:
    try:
        return [word.replace("'", '"') for word in metadata.requires(PACKAGE) or []]
    except metadata.PackageNotFoundError:
        return []


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return _normal(found[0] if found else "")


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _origin() -> str | None:
    """Return where the package was installed from, in pip's form; None if from an index (PEP 610)."""
    try:
        text = metadata.distribution(PACKAGE).read_text("direct_url.json")
        content = json.loads(text) if text else {}
    except (metadata.PackageNotFoundError, ValueError):
        return None
    url = content.get("url")
    if url and (vcs := content.get("vcs_info")):
        return f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}".rstrip("@")
    return url if isinstance(url, str) else None
