"""Python packages: which are installed, and whether their versions are compatible."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from nemolaunch.doctor.verdict import Verdict, bad, good, note

INSTALL = "pip install -c constraints.txt -e '.[train]'"
IMPORT_TIMEOUT_S = 180
Release = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Needed:
    """A package that training needs.

    Attributes:
        name: distribution name.
        module: name to import.
        fits: whether a release is compatible with the installed NeMo release.
        wanted: description of compatible releases.
        why: what happens with others.
    """

    name: str
    module: str
    fits: Callable[[Release, Release], bool]
    wanted: str
    why: str


def _any(release: Release, nemo: Release) -> bool:
    return True


# Each row was observed: the combination was tried, with this result.
NEEDED = (
    Needed(
        name="nemo_toolkit", module="nemo.collections.llm", fits=lambda r, _: (2, 4) <= r < (3,),
        wanted="2.4 to 2.7", why="NeMo 3 has no nemo.collections.llm",
    ),
    Needed(
        name="megatron-core", module="megatron.core",
        fits=lambda r, nemo: r[:2] == ((0, 15) if nemo >= (2, 6) else (0, 14) if nemo >= (2, 5) else r[:2]),
        wanted="0.14 for NeMo 2.5, 0.15 for NeMo 2.6 and 2.7",
        why="other releases can be imported, but fail when the optimizer is built",
    ),
    Needed(name="torch", module="torch", fits=_any, wanted="any", why=""),
    Needed(name="nemo_run", module="nemo_run", fits=_any, wanted="any", why=""),
    Needed(
        name="leptonai", module="leptonai", fits=lambda r, _: r < (0, 28), wanted="0.27",
        why="NeMo-Run imports a module that newer releases no longer have",
    ),
    Needed(
        name="lightning", module="lightning.pytorch", fits=lambda r, _: r[:2] <= (2, 4), wanted="up to 2.4",
        why="NeMo does not allow newer releases",
    ),
    Needed(
        name="transformers", module="transformers", wanted="4.57 for NeMo 2.7",
        fits=lambda r, nemo: r[:2] == (4, 57) or nemo[:2] != (2, 7), why="NeMo 2.7 requires it",
    ),
    Needed(
        name="numpy", module="numpy", fits=lambda r, _: r < (2,), wanted="below 2",
        why="Megatron's data loading breaks",
    ),
)  # fmt: skip


def installed(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def look(versions: Mapping[str, str | None] | None = None) -> Iterator[Verdict]:
    """Check Python and the packages that training needs, as installed or as given in `versions`."""
    found = {n.name: installed(n.name) for n in NEEDED} if versions is None else versions
    text = f"Python {platform.python_version()}, nemolaunch {installed('nemolaunch') or 'from source'}"
    yield good("packages", f"{text}, in {sys.prefix}")
    if found.get("nemo_toolkit") is None:
        yield note(
            "packages",
            "NeMo is not installed: this machine can plan and submit jobs, but not train",
            f"{INSTALL}, or use the container nvcr.io/nvidia/nemo",
        )
        return
    nemo = release(found["nemo_toolkit"] or "")
    for needed in NEEDED:
        have = found.get(needed.name)
        if have is None:
            yield bad("packages", f"{needed.name} is not installed", INSTALL)
        elif needed.fits(release(have), nemo):
            yield good("packages", f"{needed.name} {have}")
        else:
            text = f"{needed.name} {have} is not compatible (needed: {needed.wanted}): {needed.why}"
            yield bad("packages", text, INSTALL)


def release(text: str) -> Release:
    """Return the numbers that a version starts with: `2.7.0rc1` → (2, 7, 0)."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def imports() -> Iterator[Verdict]:
    """Check whether the packages can be imported, each in a separate process; takes a minute."""
    for needed in NEEDED:
        if installed(needed.name) is None:
            continue
        try:
            done = subprocess.run(
                [sys.executable, "-c", f"import {needed.module}"],
                capture_output=True,
                text=True,
                timeout=IMPORT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            yield bad("imports", f"import {needed.module} takes more than {IMPORT_TIMEOUT_S} s", INSTALL)
            continue
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["the process was killed"])[-1]
            yield bad("imports", f"import {needed.module}: {why}", INSTALL)
        else:
            yield good("imports", f"import {needed.module}")
