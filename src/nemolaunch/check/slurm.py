"""What Slurm has to be told, checked against what it says about itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown, warning
from nemolaunch.cluster import Partition, seconds, slurm_time
from nemolaunch.findings import Finding
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved

A_DAY_S = 86400
SHORT_S = 600
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_UNLIMITED = ("unlimited", "infinite")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Account, partition, time limit, mounts, nodes."""
    launch = resolved.job.launch
    if launch.executor != "slurm":
        return
    if not _WORD.fullmatch(launch.account):
        yield error("slurm-account", f"{flag('account')} {launch.account!r} is not the name of an account")
    if not launch.container_image.strip():
        images = [spec_of("container_image").default]
        yield error("slurm-image", f"{flag('container_image')} is empty", *each("container_image", images))
    yield from _mounts(resolved)
    known = resolved.facts.partitions
    if not all(_WORD.fullmatch(name) for name in launch.partition.split(",")):
        yield error(
            "slurm-partition",
            f"{flag('partition')} {launch.partition!r} is not the name of a partition",
            *each("partition", [p.name for p in known[:1]]),
        )
    else:
        yield from _on_cluster(resolved, known)
    yield from _time(resolved)


def _mounts(resolved: Resolved) -> Iterator[Finding]:
    mounts = resolved.job.launch.container_mounts
    for mount in mounts:
        parts = mount.split(":")
        if not 2 <= len(parts) <= 3 or not all(parts) or "," in mount:
            yield error(
                "slurm-mount",
                f"{flag('container_mounts')} {mount!r} is not SRC:DST or SRC:DST:FLAGS, without commas",
                fix(container_mounts=tuple(m for m in mounts if m != mount)),
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
    if launch.num_nodes > chosen.num_nodes:
        yield error(
            "slurm-nodes",
            f"{shown('num_nodes', launch.num_nodes)} is more than {chosen.name} has, {chosen.num_nodes}",
            *each("num_nodes", [chosen.num_nodes]),
            about="num_nodes",
        )
    if chosen.gpus_per_node and (launch.num_gpus or 0) > chosen.gpus_per_node:
        yield error(
            "slurm-gpus",
            f"{shown('num_gpus', launch.num_gpus)} is more than the {chosen.gpus_per_node} GPUs on a node of "
            f"{chosen.name}",
            *each("num_gpus", [chosen.gpus_per_node]),
            about="num_gpus",
        )


def _time(resolved: Resolved) -> Iterator[Finding]:
    """The time limit, where one is given; else the partition's own holds."""
    given = resolved.job.launch.time
    if given is None:
        return
    unlimited = given.lower() in _UNLIMITED
    wanted = None if unlimited else seconds(given)
    if not unlimited and not wanted:
        yield error(
            "slurm-time",
            f"{flag('time')} {given!r} is not a time limit like 90, 30:00, 12:00:00 or 3-00:00:00",
            *each("time", [slurm_time(A_DAY_S)]),
            about="time",
        )
        return
    chosen = _chosen(resolved)
    limit = chosen.time_limit_s if chosen else None
    if chosen and limit is not None and (wanted is None or wanted > limit):
        yield error(
            "slurm-time-limit",
            f"{shown('time', given)} is above the limit of {chosen.name}, {slurm_time(limit)}",
            *each("time", [slurm_time(limit)]),
            about="time",
        )
    elif wanted is not None and wanted < SHORT_S:
        yield warning("slurm-time-short", f"{shown('time', given)} leaves little after NeMo has started")
