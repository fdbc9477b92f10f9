"""What a job asks of the Slurm cluster, in the terms in which the cluster describes itself."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.facts import Facts
from nemolaunch.facts.accounting import Limits
from nemolaunch.facts.gres import Gres, parse_gres
from nemolaunch.facts.partitions import NodeKind, Partition
from nemolaunch.job import Launch


def partitions_of(launch: Launch, facts: Facts) -> tuple[Partition, ...]:
    """Return the partitions that the job names and the cluster knows: Slurm uses the first that is free."""
    names = launch.partition.split(",")
    return tuple(partition for partition in facts.partitions if partition.name in names)


def requested(launch: Launch) -> tuple[Gres, ...]:
    """Return the GPUs and slices of GPUs that `--gres` requests; none if it is not given or not understood."""
    return tuple(gres for gres in parse_gres(launch.gres or "") or () if gres.name == "gpu")


def has(kind: NodeKind, launch: Launch) -> int:
    """Return how many GPUs of the requested sort each of these nodes has."""
    asked = requested(launch)
    if not asked:
        return kind.gpus()
    return sum(kind.slices(gres.type) if gres.is_slice else kind.gpus(gres.type) for gres in asked)


def full_node(launch: Launch, facts: Facts) -> tuple[int, str] | None:
    """Return the GPUs that the job gets on each of its nodes, and why; None if that is not known."""
    if asked := requested(launch):
        return sum(gres.count for gres in asked), f"--gres {launch.gres}"
    for partition in partitions_of(launch, facts):
        if count := most_per_node(partition, launch):
            return count, f"a full node of partition {partition.name}"
    return None


def most_per_node(partition: Partition, launch: Launch) -> int:
    """Return the most GPUs that as many nodes as the job wants have each; 0 if there are not enough nodes."""
    counts = sorted({has(kind, launch) for kind in partition.kinds}, reverse=True)
    return next(
        (count for count in counts if num_nodes_with(partition, launch, count) >= launch.num_nodes), 0
    )


def num_nodes_with(partition: Partition, launch: Launch, gpus: int) -> int:
    """Return the number of nodes that have at least so many GPUs of the requested sort."""
    return sum(kind.num_nodes for kind in partition.kinds if has(kind, launch) >= gpus)


def time_limit(launch: Launch, facts: Facts) -> tuple[int, str] | None:
    """Return the shortest time limit of the job's partition and accounting in seconds, and whose it is."""
    partition = next(iter(partitions_of(launch, facts)), None)
    found = [(limits.time_s, whose) for whose, limits in limits_of(launch, facts, partition)]
    if partition is not None:
        found.insert(0, (partition.time_limit_s, f"partition {partition.name}"))
    return min(((time_s, whose) for time_s, whose in found if time_s), key=lambda each: each[0], default=None)


def limits_of(launch: Launch, facts: Facts, partition: Partition | None) -> Iterator[tuple[str, Limits]]:
    """Yield the limits in the accounting database that apply to the job, each with whose they are."""
    accounting = facts.accounting
    if "limits" not in accounting.enforced:
        return
    mine = accounting.of(launch.account, partition.name if partition else launch.partition)
    if mine is not None:
        yield f"account {mine.account}", mine.limits
    for name in dict.fromkeys((qos_of(launch, facts), partition.qos if partition else None)):
        found = accounting.quality(name)
        if found is not None:
            yield f"QOS {found.name}", found.limits


def qos_of(launch: Launch, facts: Facts) -> str | None:
    """Return the quality of service that the job runs under: `--qos`, else the account's default."""
    mine = facts.accounting.of(launch.account, launch.partition)
    return launch.qos or (mine.default_qos if mine else None) or None
