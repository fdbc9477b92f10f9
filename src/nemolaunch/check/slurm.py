"""Slurm settings, checked against what Slurm reports about the cluster."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, flag, shown, warning
from nemolaunch.facts.cluster import Partition, seconds, slurm_time
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

A_DAY_S = 86400
SHORT_S = 600
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_UNLIMITED = ("unlimited", "infinite")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check account, partition, nodes and time limit."""
    launch = resolved.job.launch
    if launch.executor != "slurm":
        return
    yield from _account(resolved)
    known = resolved.facts.partitions
    if not all(_WORD.fullmatch(name) for name in launch.partition.split(",")):
        yield error(
            "slurm-partition",
            f"{flag('partition')} {launch.partition!r} is not a valid partition name",
            *each("partition", [p.name for p in known[:1]]),
        )
    else:
        yield from _on_cluster(resolved, known)
    yield from _time(resolved)


def _account(resolved: Resolved) -> Iterator[Finding]:
    given, mine = resolved.job.launch.account, resolved.facts.accounts
    if not _WORD.fullmatch(given):
        yield error(
            "slurm-account",
            f"{flag('account')} {given!r} is not a valid account name",
            *each("account", (mine or ())[:1]),
            about="account",
        )
    elif mine and given not in mine:
        near = difflib.get_close_matches(given, mine, n=1) or mine[:2]
        yield error(
            "slurm-account",
            f"{shown('account', given)} is not one of your Slurm accounts",
            *each("account", near),
            about="account",
        )


def _chosen(resolved: Resolved) -> Partition | None:
    return next((p for p in resolved.facts.partitions if p.name == resolved.job.launch.partition), None)


def _on_cluster(resolved: Resolved, known: tuple[Partition, ...]) -> Iterator[Finding]:
    launch, names = resolved.job.launch, [p.name for p in known]
    if not known or "," in launch.partition:
        return
    chosen = _chosen(resolved)
    if chosen is None:
        near = difflib.get_close_matches(launch.partition, names, n=2) or names[:2]
        yield error(
            "slurm-partition",
            f"{shown('partition', launch.partition)} is not a partition of this cluster",
            *each("partition", near),
            about="partition",
        )
        return
    if not chosen.up:
        others = [p.name for p in known if p.up and p.num_nodes >= launch.num_nodes]
        yield warning(
            "slurm-partition-down",
            f"{shown('partition', chosen.name)} is down and starts no jobs at the moment",
            *each("partition", others[:2]),
            about="partition",
        )
    yield from _nodes(launch.num_nodes, chosen)
    if chosen.gpus_per_node and (launch.num_gpus or 0) > chosen.gpus_per_node:
        yield error(
            "slurm-gpus",
            f"{shown('num_gpus', launch.num_gpus)} exceeds the {chosen.gpus_per_node} GPUs of each node in partition "
            f"{chosen.name}",
            *each("num_gpus", [chosen.gpus_per_node]),
            about="num_gpus",
        )


def _nodes(wanted: int, chosen: Partition) -> Iterator[Finding]:
    most = min(chosen.num_nodes, chosen.most_nodes or chosen.num_nodes)
    usable = chosen.usable_nodes
    if wanted > most:
        limit = (
            f"the {most} nodes of partition {chosen.name}"
            if most == chosen.num_nodes
            else f"the limit of {most} nodes per job in partition {chosen.name}"
        )
        yield error(
            "slurm-nodes",
            f"{shown('num_nodes', wanted)} exceeds {limit}",
            *each("num_nodes", [most]),
            about="num_nodes",
        )
    elif usable is not None and wanted > usable:
        yield warning(
            "slurm-nodes-down",
            f"{shown('num_nodes', wanted)} exceeds the {usable} nodes of partition {chosen.name} that are up "
            f"({chosen.num_nodes} in all), so the job waits until more are up",
            *each("num_nodes", [usable] if usable else []),
            about="num_nodes",
        )


def _time(resolved: Resolved) -> Iterator[Finding]:
    """Check the time limit if one is given; otherwise the partition's applies."""
    given = resolved.job.launch.time
    if given is None:
        return
    unlimited = given.lower() in _UNLIMITED
    wanted = None if unlimited else seconds(given)
    if not unlimited and not wanted:
        yield error(
            "slurm-time",
            f"{flag('time')} {given!r} is not a time limit such as 90, 30:00, 12:00:00 or 3-00:00:00",
            *each("time", [slurm_time(_informal_seconds(given) or A_DAY_S)]),
            about="time",
        )
        return
    chosen = _chosen(resolved)
    limit = chosen.time_limit_s if chosen else None
    if chosen and limit is not None and (wanted is None or wanted > limit):
        yield error(
            "slurm-time-limit",
            f"{shown('time', given)} exceeds the limit of partition {chosen.name}, {slurm_time(limit)}",
            *each("time", [slurm_time(limit)]),
            about="time",
        )
    elif wanted is not None and wanted < SHORT_S:
        yield warning(
            "slurm-time-short",
            f"{shown('time', given)} leaves little time for training once NeMo has started",
        )


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(d|h|m|s)[a-z]*", re.ASCII)


def _informal_seconds(text: str) -> int | None:
    """Return the seconds of an informal time such as `12h`, `1.5 days` or `1d 12h`; None if it is not one."""
    word = text.strip().lower()
    if not re.fullmatch(rf"(?:{_SPAN.pattern}[\s,]*)+", word, re.ASCII):
        return None
    total = round(sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(word)))
    return total if 0 < total < 10**9 else None
