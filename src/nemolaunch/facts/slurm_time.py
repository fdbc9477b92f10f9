"""Time limits in Slurm's format."""

from __future__ import annotations

import re

# minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]] (sbatch manual, --time)
_TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,9})(?::(\d{1,2}))?(?::(\d{1,2}))?", re.ASCII)


def seconds(text: str) -> int | None:
    """Return a Slurm time limit in seconds; None if there is no limit, or if the text is not a time."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    days, *numbers = match.groups()
    first, second, third = (None if n is None else int(n) for n in numbers)
    if days is not None:
        return int(days) * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)


def slurm_time(total_s: int) -> str:
    """Format seconds the way Slurm does: `3-00:00:00`."""
    minutes, s = divmod(total_s, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days}-{h:02}:{m:02}:{s:02}" if days else f"{h:02}:{m:02}:{s:02}"
