"""What a batch script has to know of the machine and the run folder it is submitted from."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from nemolaunch.run.folder import RunDir


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One hand-over of a plan to Slurm.

    Attributes:
        number: 1 for the first submission of a run folder, then counting; names NeMo-Run's experiment.
        bin: folder of the Python interpreter that runs outside a container.
        links: folders outside the job's own that its data files are links into.
        stream_folders: folders that rows of a stream are read from.
    """

    number: int
    bin: str
    links: tuple[str, ...] = ()
    stream_folders: tuple[str, ...] = ()


def next_submission(
    run: RunDir, prefixes: tuple[str, ...], stream_folders: tuple[str, ...] = ()
) -> Submission:
    """The next submission of a run folder, from this machine and interpreter. Reads the disk."""
    numbers = [0]
    for path in run.nemo_run.glob("experiments/*/*_*"):
        digits = path.name.rpartition("_")[2]
        numbers.append(int(digits) if digits.isdigit() else 0)
    return Submission(
        number=max(numbers) + 1,
        bin=os.path.dirname(os.path.abspath(sys.executable)),
        links=tuple(_links(prefixes)),
        stream_folders=stream_folders,
    )


def _links(prefixes: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    real = {folder: os.path.realpath(folder) for folder in dict.fromkeys(map(os.path.dirname, prefixes))}
    found += [target for folder, target in real.items() if target != folder]
    for prefix in prefixes:
        for path in (prefix + ".bin", prefix + ".idx"):
            folder = os.path.dirname(os.path.realpath(path)) if os.path.islink(path) else ""
            if folder and folder != os.path.dirname(prefix) and folder not in found:
                found.append(folder)
    return found


def split_option(word: str) -> tuple[str, str | None]:
    """`--nice=100` → `("nice", "100")`; an option without a value gets None."""
    name, equals, value = word.lstrip("-").partition("=")
    return name.strip().replace("_", "-"), value if equals else None
