"""What a batch script needs to know about the machine and the run folder it is submitted from."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from nemolaunch.run.folder import RunDir, unfit_nodes


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submission of a plan to Slurm.

    Attributes:
        number: number of the submission of this run folder, from 1; part of NeMo-Run's experiment name.
        bin: folder of the Python interpreter, used without a container.
        links: folders outside the job's own to which its data files are links.
        stream_folders: folders from which rows of a stream are read.
        unfit: nodes that preflights of this run found slow or sick.
        user: UID:GID.
    """

    number: int
    bin: str
    links: tuple[str, ...] = ()
    stream_folders: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    user: str = "0:0"


def next_submission(
    run: RunDir, prefixes: tuple[str, ...], stream_folders: tuple[str, ...] = ()
) -> Submission:
    """Return the next submission of a run folder, from this machine and interpreter. Reads the disk."""
    numbers = [0]
    for path in run.nemo_run.glob("experiments/*/*_*"):
        digits = path.name.rpartition("_")[2]
        numbers.append(int(digits) if digits.isdigit() else 0)
    return Submission(
        number=max(numbers) + 1,
        bin=os.path.dirname(os.path.abspath(sys.executable)),
        links=links_of(prefixes),
        stream_folders=stream_folders,
        unfit=unfit_nodes(run),
        user=f"{os.getuid()}:{os.getgid()}",
    )


def links_of(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders outside the data's own to which data files are links."""
    found: list[str] = []
    real = {folder: os.path.realpath(folder) for folder in dict.fromkeys(map(os.path.dirname, prefixes))}
    found += [target for folder, target in real.items() if target != folder]
    for prefix in prefixes:
        for path in (prefix + ".bin", prefix + ".idx"):
            folder = os.path.dirname(os.path.realpath(path)) if os.path.islink(path) else ""
            if folder and folder != os.path.dirname(prefix) and folder not in found:
                found.append(folder)
    return tuple(found)


def split_option(word: str) -> tuple[str, str | None]:
    """Split `--nice=100` into `("nice", "100")`; the value is None if there is none."""
    name, equals, value = word.lstrip("-").partition("=")
    return name.strip().replace("_", "-"), value if equals else None
