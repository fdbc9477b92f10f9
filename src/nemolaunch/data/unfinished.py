"""The folder of an unfinished run of `nemolaunch tokenize`: its name, and the file that says how far it is."""

from __future__ import annotations

from dataclasses import dataclass

ENDING = ".unfinished"
PACE = "pace.json"
PROGRESS = "progress.json"
JOBS = "jobs.json"  # ids of the Slurm jobs that were submitted for it: the array and the one that joins


@dataclass(frozen=True)
class Pace:
    """How far a run is, written every few seconds.

    Attributes:
        done_bytes, total_bytes: of the input.
        new_bytes: what this process has done, in `seconds`; the rest was done before.
        num_units: of a run whose units other processes do; then only its results say how far it is.
        done_units: of these, what was done before its jobs were submitted.
    """

    total_bytes: int
    done_bytes: int = 0
    new_bytes: int = 0
    seconds: float = 0.0
    num_units: int = 0
    done_units: int = 0


def lock_name(name: str) -> str:
    """Return the name of the file that the process holds which writes the output of that name."""
    return f".{name}.lock"
