"""The starts of a run's jobs on Slurm, as the batch script writes them down, and what was said during each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.run.folder import START_LINE, RunDir

TAIL_BYTES = 65536
MOST_BYTES = 64 * TAIL_BYTES  # how far back an earlier start is looked for
_MARK = re.compile(rf"^{re.escape(START_LINE)}(\S+)(?= on )", re.MULTILINE)


@dataclass(frozen=True)
class Start:
    """One start of a job; one that is requeued starts again under its own id.

    Attributes:
        time: Unix seconds.
        checkpoint_step: 0-based step of the newest checkpoint it found; -1: none.
        nodes: as Slurm lists them, `n[1-2]`.
    """

    job: str
    restart: str
    time: float
    checkpoint_step: int
    nodes: str

    @property
    def name(self) -> str:
        """`JOB.RESTART`, as logs and error records name it."""
        return f"{self.job}.{self.restart}"


def starts(run: RunDir) -> list[Start]:
    """All since the run was last submitted by hand, the newest last; none of a run that is not on Slurm."""
    found: list[Start] = []
    try:
        lines = run.slurm_starts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        if words[:1] == ["-"]:
            found.clear()
        elif len(words) == 5 and words[2].isdigit():
            found.append(Start(words[0], words[1], float(words[2]), int(words[3]), words[4]))
    return found


def said_during(path: Path, start: Start | None) -> str:
    """The end of what a log says of a start: up to 64 KiB; None stands for a log without starts.

    Logs are appended to over all starts, each beginning with a line of its own.
    """
    if start is None:
        return tail(path)
    size = TAIL_BYTES
    while size <= MOST_BYTES:
        parts = _MARK.split(
            tail(path, size)
        )  # what stands before the first mark, then name, text, name, text …
        for name, said in zip(parts[1::2], parts[2::2], strict=True):
            if name == start.name:
                return said[-TAIL_BYTES:]
        if size >= _size(path):
            break
        size *= 4
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def tail(path: Path, most_bytes: int = TAIL_BYTES) -> str:
    """The end of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def host_in(said: str) -> str | None:
    """The host a rank ran on, from the rest of the line its log begins a start with."""
    found = re.match(r" on (\S+)", said)
    return found[1] if found else None


def expand_nodes(listed: str) -> list[str]:
    """Slurm's `n[01-03,7],login` as `n01 n02 n03 n7 login`."""
    names = []
    for word in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", listed):
        match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", word)
        if match is None:
            names.append(word)
            continue
        for part in match[2].split(","):
            low, _, high = part.partition("-")
            names += [f"{match[1]}{i:0{len(low)}}{match[3]}" for i in range(int(low), int(high or low) + 1)]
    return names
