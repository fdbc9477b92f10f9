"""What Slurm says about itself, through `sinfo`; nothing where it is not installed."""

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
        num_nodes: all of them; `usable_nodes`: without those that are down or drained, None where not known.
        time_limit_s: the longest job it takes; None: no limit.
        most_nodes: of one job; None: no limit.
        gpus_per_node: the most GPUs on one of its nodes; None where `sinfo` shows no GPUs.
        gpus: what the cluster calls its GPUs, one name a kind.
        up: whether it takes jobs and starts them.
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
    """What Slurm says to this user. `accounts`: those that may be billed; None where any may, or none is known."""

    partitions: tuple[Partition, ...] = ()
    accounts: tuple[str, ...] | None = None


def look_at_cluster() -> Cluster:
    """Ask Slurm's own commands, all at once; nothing is known where they are not installed or do not answer."""
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


# partition, its time limit, nodes, their generic resources, whether it is up, nodes by state, nodes of a job
SINFO = "%R|%l|%D|%G|%a|%F|%s"


def parse_sinfo(answer: str) -> tuple[Partition, ...]:
    """Partitions of `sinfo --format=SINFO`, which has one line per partition and kind of node."""
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
    """Names of the GPUs in generic resources, as they are asked for: `gpu:h100:8` → `("h100",)`."""
    return tuple(dict.fromkeys(name for name, _ in _gpus(gres) if name))


def _gpus(gres: str) -> list[tuple[str, int]]:
    """`gpu:h100:8(S:0-1)` → `[("h100", 8)]`; a GPU without a name has none."""
    found = re.findall(r"\bgpu:(?:([^:,()]+):)?(\d+)", gres)
    return [(kind, int(number)) for kind, number in found]


def _usable(by_state: str) -> int | None:
    """Nodes that are allocated or idle, of `allocated/idle/other/total`."""
    counts = by_state.split("/")
    return int(counts[0]) + int(counts[1]) if len(counts) == 4 and all(c.isdigit() for c in counts) else None


def _most(size: str) -> int | None:
    """The larger end of `1-infinite` or `1-64`."""
    most = size.rpartition("-")[2]
    return int(most) if most.isdigit() else None


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
