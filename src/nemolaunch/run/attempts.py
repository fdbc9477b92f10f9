"""The attempts of a run on Slurm, as recorded by the batch script, and the output of each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.run.folder import ATTEMPT_LINE, RunDir

TAIL_BYTES = 65536
MAX_TAIL_BYTES = 64 * TAIL_BYTES  # how far back an earlier attempt is searched for
_MARK = re.compile(rf"^{re.escape(ATTEMPT_LINE)}(\S+)(?= on )", re.MULTILINE)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job to train; a requeued job makes another attempt under the same id.

    Attributes:
        time: when it started, in Unix seconds.
        checkpoint_step: 0-based step of the newest checkpoint it found; -1 if there was none.
        nodes: as Slurm lists them, e.g. `n[1-2]`.
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


def attempts(run: RunDir) -> list[Attempt]:
    """Return all attempts since the run was last submitted by the user, newest last; none if not on Slurm."""
    found: list[Attempt] = []
    try:
        lines = run.slurm_attempts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        if words[:1] == ["-"]:
            found.clear()
        elif len(words) == 5 and words[2].isdigit():
            found.append(Attempt(words[0], words[1], float(words[2]), int(words[3]), words[4]))
    return found


def start_times(run: RunDir) -> tuple[list[float], list[float]]:
    """Return when the user submitted a run and when its attempts began, in Unix seconds; empty if not on Slurm."""
    submitted: list[float] = []
    begun: list[float] = []
    try:
        lines = run.slurm_attempts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return submitted, begun
    for words in map(str.split, lines):
        if len(words) > 2 and words[2].isdigit():
            (submitted if words[0] == "-" else begun).append(float(words[2]))
    return submitted, begun


def output_during(path: Path, attempt: Attempt | None) -> str:
    """Return the end of what a log contains about an attempt, up to 64 KiB; None for a log without attempts.

    All attempts append to the same logs; each begins with a marker line.
    """
    if attempt is None:
        return tail(path)
    size = TAIL_BYTES
    while size <= MAX_TAIL_BYTES:
        parts = _MARK.split(tail(path, size))  # text before the first marker, then name, text, name, text …
        for name, said in zip(parts[1::2], parts[2::2], strict=True):
            if name == attempt.name:
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


def tail(path: Path, max_bytes: int = TAIL_BYTES) -> str:
    """Return the end of a file; an empty string if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def host_in(said: str) -> str | None:
    """Return the host a rank ran on, from the rest of the marker line with which its log begins an attempt."""
    found = re.match(r" on (\S+)", said)
    return found[1] if found else None


def expand_nodes(listed: str) -> list[str]:
    """Expand Slurm's `n[01-03,7],login` to `n01 n02 n03 n7 login`."""
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
