"""The limits in Slurm's accounting database: qualities of service, and who may use a partition."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from nemolaunch.check.support import each, error, shown
from nemolaunch.facts.accounting import Limits
from nemolaunch.facts.partitions import Partition
from nemolaunch.facts.slurm_time import seconds, slurm_time
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.cluster import limits_of, qos_of


def in_partition(resolved: Resolved, chosen: Partition) -> Iterator[Finding]:
    """Check account, quality of service, nodes, GPUs and time against what applies to a job in a partition."""
    yield from _may_use(resolved, chosen)
    for whose, limits in limits_of(resolved.job.launch, resolved.facts, chosen):
        yield from _within(resolved, whose, limits)


def qos(resolved: Resolved) -> Iterator[Finding]:
    """Check that `--qos` exists and that the account may use it."""
    launch, accounting = resolved.job.launch, resolved.facts.accounting
    if launch.executor != "slurm" or launch.qos is None or "qos" not in accounting.enforced:
        return
    names = tuple(quality.name for quality in accounting.qualities)
    mine = accounting.of(launch.account, launch.partition)
    usable = mine.qos if mine and mine.qos else names
    if usable and launch.qos not in usable:
        what = "one that the account may use" if launch.qos in names else "a QOS of this cluster"
        yield error(
            "slurm-qos",
            f"{shown('qos', launch.qos)} is not {what}: {', '.join(usable)}",
            *each("qos", difflib.get_close_matches(launch.qos, usable, n=2) or usable[:2]),
            about="qos",
        )


def _may_use(resolved: Resolved, chosen: Partition) -> Iterator[Finding]:
    launch, accounting = resolved.job.launch, resolved.facts.accounting
    if chosen.accounts is not None and launch.account not in chosen.accounts:
        mine = [account for account in accounting.accounts if account in chosen.accounts]
        yield error(
            "slurm-account",
            f"{shown('account', launch.account)} may not use partition {chosen.name}, which is for "
            f"{', '.join(chosen.accounts)}",
            *each("account", mine[:2]),
            about="account",
        )
    under = qos_of(launch, resolved.facts)
    if chosen.allowed_qos is not None and under is not None and under not in chosen.allowed_qos:
        yield error(
            "slurm-qos",
            f"{shown('qos', under)} may not be used in partition {chosen.name}, which allows "
            f"{', '.join(chosen.allowed_qos)}",
            *each("qos", chosen.allowed_qos[:2]),
            about="qos",
        )


def _within(resolved: Resolved, whose: str, limits: Limits) -> Iterator[Finding]:
    """Compare the job with limits: one beyond them is refused, or waits forever."""
    launch = resolved.job.launch
    nodes, gpus = launch.num_nodes, resolved.world_size if resolved.device == "gpu" else 0
    per_node = launch.num_gpus or 1
    time_s = seconds(launch.time or "")
    if limits.time_s is not None and time_s is not None and time_s > limits.time_s:
        text = f"{shown('time', launch.time)} exceeds {slurm_time(limits.time_s)}"
        yield _beyond(whose, text, "time", [slurm_time(limits.time_s)])
    if limits.most_nodes is not None and nodes > limits.most_nodes:
        text = f"{shown('num_nodes', nodes)} exceeds {limits.most_nodes} nodes"
        yield _beyond(whose, text, "num_nodes", [limits.most_nodes])
    if limits.most_gpus is not None and gpus > limits.most_gpus:
        fitting = [limits.most_gpus // per_node] if limits.most_gpus >= per_node else []
        text = f"{nodes} nodes with {per_node} GPUs each exceed {limits.most_gpus} GPUs"
        yield _beyond(whose, text, "num_nodes", fitting)
    if limits.least_nodes is not None and nodes < limits.least_nodes:
        text = f"{shown('num_nodes', nodes)} is below {limits.least_nodes} nodes"
        yield _beyond(whose, text, "num_nodes", [limits.least_nodes])
    if limits.least_gpus is not None and 0 < gpus < limits.least_gpus:
        text = f"{nodes} nodes with {per_node} GPUs each are below {limits.least_gpus} GPUs"
        yield _beyond(whose, text, "num_nodes", [-(-limits.least_gpus // per_node)])


def _beyond(whose: str, text: str, name: str, values: Sequence[object]) -> Finding:
    return error("slurm-limit", f"{text}, the limit of {whose}", *each(name, values), about=name)
