"""Python packages: which are installed, and whether their versions are compatible."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from nemolaunch.catalogue.version_pairs import (
    Release,
    bridge_pair,
    bridge_pairs,
    judge,
    nearest_proven,
    patches_for,
    release,
)
from nemolaunch.doctor.verdict import Verdict, bad, good, note, warning
from nemolaunch.facts.interpreter import bridge_interpreter
from nemolaunch.system.installation import how_to_repair

INSTALL = how_to_repair()
BRIDGE_INSTALL = "`make install-bridge` in a clone of nemolaunch"
IMPORT_TIMEOUT_S = 180


@dataclass(frozen=True, kw_only=True)
class Needed:
    """A package that training needs.

    Attributes:
        name: distribution name.
        module: name to import.
        fits: whether a release is compatible with the installed releases of NeMo and Megatron-Core.
        wanted: description of compatible releases.
        why: what happens with others.
    """

    name: str
    module: str
    fits: Callable[[Release, Release, Release], bool]
    wanted: str
    why: str


def _any(release: Release, nemo: Release, megatron: Release) -> bool:
    return True


# Each row was observed: the combination was tried, with this result.
NEEDED = (
    Needed(
        name="nemo_toolkit", module="nemo.collections.llm", fits=lambda r, nemo, megatron: (2, 4) <= r < (3,),
        wanted="2.4 to 2.7", why="NeMo 3 has no nemo.collections.llm",
    ),
    # whether it fits NeMo is judged by the table of pairs
    Needed(name="megatron-core", module="megatron.core", fits=_any, wanted="any", why=""),
    Needed(name="torch", module="torch", fits=_any, wanted="any", why=""),
    Needed(name="nemo_run", module="nemo_run", fits=_any, wanted="any", why=""),
    Needed(
        name="leptonai", module="leptonai", fits=lambda r, nemo, megatron: r < (0, 28), wanted="0.27",
        why="NeMo-Run imports a module that newer releases no longer have",
    ),
    Needed(
        name="lightning", module="lightning.pytorch", wanted="up to 2.4",
        fits=lambda r, nemo, megatron: r[:2] <= (2, 4), why="NeMo does not allow newer releases",
    ),
    Needed(
        name="transformers", module="transformers", wanted="4.57 for NeMo 2.7",
        fits=lambda r, nemo, megatron: r[:2] == (4, 57) or nemo[:2] != (2, 7), why="NeMo 2.7 requires it",
    ),
    Needed(
        name="numpy", module="numpy", wanted="below 2 for Megatron-Core before 0.16",
        fits=lambda r, nemo, megatron: r < (2,) or megatron >= (0, 16), why="Megatron's data loading breaks",
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
    nemo, core = release(found["nemo_toolkit"] or ""), release(found.get("megatron-core") or "")
    for needed in NEEDED:
        have = found.get(needed.name)
        if have is None:
            yield bad("packages", f"{needed.name} is not installed", INSTALL)
        elif needed.fits(release(have), nemo, core):
            yield good("packages", f"{needed.name} {have}")
        else:
            text = f"{needed.name} {have} is not compatible (needed: {needed.wanted}): {needed.why}"
            yield bad("packages", text, INSTALL)
    megatron = found.get("megatron-core")
    if megatron is not None:
        yield from pair(found["nemo_toolkit"] or "", megatron)


def pair(nemo: str, megatron: str) -> Iterator[Verdict]:
    """Judge NeMo together with Megatron-Core, by the table that the checks of a job use."""
    verdict, text = judge(nemo, megatron), f"NeMo {nemo} with Megatron-Core {megatron}"
    if verdict.pair and verdict.pair.fails:
        yield bad("packages", f"{text} fails on import: {verdict.pair.fails}", INSTALL)
    elif verdict.status == "works":
        needed = [patch.name for patch in patches_for(megatron)]
        yield good("packages", f"{text} trains" + (f", with patches: {', '.join(needed)}" if needed else ""))
    else:
        yield warning(
            "packages", f"{text} was never trained; nearest tested: {nearest_proven(nemo, megatron)}", INSTALL
        )


def bridge() -> Iterator[Verdict]:
    """Judge Megatron-Bridge in the environment that would train with it; says nothing where there is none."""
    found = bridge_interpreter()
    if found.error or found.bridge is None:
        return
    text = f"Megatron-Bridge {found.bridge} with Megatron-Core {found.megatron}, in {found.path}"
    pair = bridge_pair(found.bridge, found.megatron)
    if pair is None:
        known = ", ".join(str(each) for each in bridge_pairs() if each.fails is None)
        yield warning("packages", f"{text}, was never trained; tested: {known}", BRIDGE_INSTALL)
    elif pair.fails:
        yield bad("packages", f"{text}, does not train: {pair.fails}", BRIDGE_INSTALL)
    else:
        yield good("packages", f"{text}, trains")


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
