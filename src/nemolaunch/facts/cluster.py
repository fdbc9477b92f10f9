"""Facts about the Slurm cluster, from `sinfo` and similar commands; empty if they are not installed."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass

from nemolaunch.system.commands import answers

_TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition.

    Attributes:
        num_nodes: number of nodes; `usable_nodes`: without those that are down or drained, None if not known.
        time_limit_s: the maximum duration of a job; None: no limit.
        most_nodes: the maximum number of nodes of a job; None: no limit.
        gpus_per_node: the maximum number of GPUs on one node; None if `sinfo` shows no GPUs.
        gpus: the cluster's names for its GPUs, one per type.
        up: whether it accepts and starts jobs.
    """

    name: str
    num_nodes: int
    usable_nodes: int | None = None
    time_limit_s: int | None = None
    most_nodes: int | None = None
    gpus_per_node: int | None = None
    gpus: tuple[str, ...] = ()
    up: bool = True


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster as this user sees it. `accounts`: those the user may bill; None if any, or if not known."""

    partitions: tuple[Partition, ...] = ()
    accounts: tuple[str, ...] | None = None


def look_at_cluster() -> Cluster:
    """Query Slurm's commands concurrently; facts are missing if they are not installed or do not answer."""
    nodes, config, mine = answers(
        ["sinfo", "--noheader", f"--format={SINFO}"],
        ["scontrol", "show", "config"],
        ["sacctmgr", "-nP", "show", "associations", f"user={_user()}", "format=account"],
        timeout_s=_TIMEOUT_S,
    )
    enforced = re.search(r"^AccountingStorageEnforce\s*=.*associations", config or "", re.MULTILINE)
    accounts = tuple(dict.fromkeys((mine or "").split())) if enforced else ()
    return Cluster(partitions=parse_sinfo(nodes or ""), accounts=accounts or None)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


# partition, time limit, nodes, generic resources, availability, nodes by state, job size
SINFO = "%R|%l|%D|%G|%a|%F|%s"


def parse_sinfo(answer: str) -> tuple[Partition, ...]:
    """Parse the output of `sinfo --format=SINFO`, which has one line per partition and type of node."""
    found: dict[str, Partition] = {}
    for line in answer.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 7 or not parts[2].isdigit():
            continue
        name, limit, nodes, gres, state, by_state, size = parts
        before = found.get(name, Partition(name=name, num_nodes=0, usable_nodes=0))
        gpus = _gpus(gres)
        count = sum(number for _, number in gpus) or None
        usable = _usable(by_state)
        found[name] = Partition(
            name=name,
            num_nodes=int(nodes) + before.num_nodes,
            usable_nodes=None if usable is None else usable + (before.usable_nodes or 0),
            time_limit_s=seconds(limit),
            most_nodes=_most(size),
            gpus_per_node=max((n for n in (count, before.gpus_per_node) if n), default=None),
            gpus=tuple(dict.fromkeys([*before.gpus, *(kind for kind, _ in gpus if kind)])),
            up=state == "up",
        )
    return tuple(found.values())


def gpu_names(gres: str) -> tuple[str, ...]:
    """Return the names of the GPUs in generic resources: `gpu:h100:8` → `("h100",)`."""
    return tuple(dict.fromkeys(name for name, _ in _gpus(gres) if name))


def _gpus(gres: str) -> list[tuple[str, int]]:
    """Parse `gpu:h100:8(S:0-1)` into `[("h100", 8)]`; the name is empty if there is none."""
    found = re.findall(r"\bgpu:(?:([^:,()]+):)?(\d+)", gres)
    return [(kind, int(number)) for kind, number in found]


def _usable(by_state: str) -> int | None:
    """Return the number of allocated and idle nodes in `allocated/idle/other/total`."""
    counts = by_state.split("/")
    return int(counts[0]) + int(counts[1]) if len(counts) == 4 and all(c.isdigit() for c in counts) else None


def _most(size: str) -> int | None:
    """Return the upper end of `1-infinite` or `1-64`."""
    most = size.rpartition("-")[2]
    return int(most) if most.isdigit() else None


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
