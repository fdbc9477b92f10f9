"""What Slurm says about itself, through `sinfo`; nothing where it is not installed."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

_TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition.

    Attributes:
        time_limit_s: the longest job it takes; None: no limit.
        gpus_per_node: the most GPUs on one of its nodes; None where `sinfo` shows no GPUs.
    """

    name: str
    num_nodes: int
    time_limit_s: int | None = None
    gpus_per_node: int | None = None


def partitions() -> tuple[Partition, ...]:
    """All partitions that `sinfo` shows; empty where it cannot be asked."""
    command = ["sinfo", "--noheader", "--format=%R|%l|%D|%G"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    return parse_sinfo(ran.stdout)


def parse_sinfo(answer: str) -> tuple[Partition, ...]:
    """Partitions of `sinfo --format=%R|%l|%D|%G`, which has one line per partition and kind of node."""
    found: dict[str, Partition] = {}
    for line in answer.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 4 or not parts[2].isdigit():
            continue
        name, limit, nodes, gres = parts
        before = found.get(name)
        gpus = [n for n in (_gpus(gres), before.gpus_per_node if before else None) if n is not None]
        found[name] = Partition(
            name=name,
            num_nodes=int(nodes) + (before.num_nodes if before else 0),
            time_limit_s=seconds(limit),
            gpus_per_node=max(gpus, default=None),
        )
    return tuple(found.values())


def _gpus(gres: str) -> int | None:
    counts = [int(n) for n in re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", gres)]
    return sum(counts) if counts else None


# minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]] (sbatch manual, --time)
_TIME = re.compile(r"(?:(\d{1,6})-)?(\d{1,9})(?::(\d{1,2}))?(?::(\d{1,2}))?", re.ASCII)


def seconds(text: str) -> int | None:
    """A Slurm time limit in seconds; None for no limit, or for what is none."""
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
    """Seconds as Slurm writes them: `3-00:00:00`."""
    minutes, s = divmod(total_s, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days}-{h:02}:{m:02}:{s:02}" if days else f"{h:02}:{m:02}:{s:02}"
