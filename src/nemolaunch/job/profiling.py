"""Which steps of a run are profiled, and how Nsight Systems' reports are named."""

from __future__ import annotations

import re

_STEPS = re.compile(r"(\d{1,9}):(\d{1,9})", re.ASCII)


def steps_of(text: str) -> tuple[int, int]:
    """Parse `10:12` into (10, 12): the steps after 10, up to 12.

    Raises:
        ValueError: the text is not START:STOP with START below STOP.
    """
    found = _STEPS.fullmatch(text)
    start, stop = map(int, found.groups()) if found else (0, 0)
    if start >= stop:
        raise ValueError(f"{text!r} is not START:STOP with START below STOP")
    return start, stop


def nsys_file(by_slurm: bool) -> str:
    """Return the file name of Nsight Systems' reports, one per process; nsys fills in `%p` and `%q{…}`."""
    if not by_slurm:
        return "profile_%p"
    return "profile_%p_%q{SLURM_JOB_ID}_node%q{SLURM_NODEID}_rank%q{SLURM_PROCID}"


def nsys_words(folder: str, file: str) -> list[str]:
    """Return the Nsight Systems command that profiles another one, with NeMo-Run's options."""
    return [
        *("nsys", "profile", "-s", "none", "-t", "nvtx,cuda"),
        *("-o", f"{folder}/{file}", "--force-overwrite=true"),
        *("--capture-range=cudaProfilerApi", "--capture-range-end=stop"),
        *("--cuda-graph-trace=node", "--cuda-event-trace=false"),
    ]
