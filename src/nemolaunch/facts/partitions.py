"""Partitions of a Slurm cluster, as `sinfo` and `scontrol show partition` describe them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from nemolaunch.facts.gres import Gres, gpu_types, parse_gres
from nemolaunch.facts.slurm_time import seconds


@dataclass(frozen=True, kw_only=True)
class NodeKind:
    """The nodes of a partition that have the same generic resources.

    Attributes:
        num_nodes: number of nodes; `usable_nodes`: without those that are down or drained, None if not known.
        gres: the resources of each node; empty if it has none, or if Slurm does not manage any.
    """

    num_nodes: int
    usable_nodes: int | None = None
    gres: tuple[Gres, ...] = ()

    def gpus(self, kind: str = "") -> int:
        """Return the number of whole GPUs of each node, of one type if it is given."""
        return sum(g.count for g in self.gres if g.is_gpu and kind in ("", g.type))

    def slices(self, kind: str = "") -> int:
        """Return the number of MIG slices of each node, of one type if it is given."""
        return sum(g.count for g in self.gres if g.is_slice and kind in ("", g.type))


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition.

    Attributes:
        kinds: its nodes by their resources.
        time_limit_s: the maximum duration of a job; None: no limit.
        least_nodes, most_nodes: the minimum and maximum number of nodes of a job; most None: no limit.
        state: `up`; `down`: queues jobs but starts none; `drain`, `inactive`: accepts no jobs.
        default: whether jobs that name no partition go there.
        qos: the quality of service whose limits apply to every job in it, or None.
        accounts, allowed_qos: those that may use it; None: all.
    """

    name: str
    kinds: tuple[NodeKind, ...] = ()
    time_limit_s: int | None = None
    least_nodes: int = 1
    most_nodes: int | None = None
    state: str = "up"
    default: bool = False
    qos: str | None = None
    accounts: tuple[str, ...] | None = None
    allowed_qos: tuple[str, ...] | None = None

    @property
    def up(self) -> bool:
        """Whether it accepts and starts jobs."""
        return self.state == "up"

    @property
    def num_nodes(self) -> int:
        """The number of its nodes."""
        return sum(kind.num_nodes for kind in self.kinds)

    @property
    def usable_nodes(self) -> int | None:
        """The number of its nodes that are neither down nor drained; None if not known."""
        return usable(self.kinds)

    @property
    def gpus_per_node(self) -> int | None:
        """The most whole GPUs that one of its nodes has; None if no node shows any."""
        return max((kind.gpus() for kind in self.kinds), default=0) or None

    @property
    def gpus(self) -> tuple[str, ...]:
        """The cluster's names for its GPUs, one per type."""
        return gpu_types(tuple(gres for kind in self.kinds for gres in kind.gres))


def usable(kinds: tuple[NodeKind, ...]) -> int | None:
    """Return how many of these nodes are neither down nor drained; None if that is not known of all."""
    counts = [kind.usable_nodes for kind in kinds]
    return None if None in counts else sum(count or 0 for count in counts)


# partition, time limit, nodes, generic resources, availability, nodes by state, job size
SINFO = "%R|%l|%D|%G|%a|%F|%s"


def parse_sinfo(answer: str) -> tuple[Partition, ...]:
    """Parse the output of `sinfo --format=SINFO`, which has one line per partition and kind of node."""
    found: dict[str, Partition] = {}
    for line in answer.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 7 or not parts[2].isdigit():
            continue
        name, limit, nodes, gres, state, by_state, size = parts
        kind = NodeKind(num_nodes=int(nodes), usable_nodes=_usable(by_state), gres=parse_gres(gres) or ())
        least, most = _job_size(size)
        before = found[name].kinds if name in found else ()
        found[name] = Partition(
            name=name,
            kinds=(*before, kind),
            time_limit_s=seconds(limit),
            least_nodes=least,
            most_nodes=most,
            state=state,
        )
    return tuple(found.values())


def _usable(by_state: str) -> int | None:
    """Return the number of allocated and idle nodes in `allocated/idle/other/total`."""
    counts = by_state.split("/")
    return int(counts[0]) + int(counts[1]) if len(counts) == 4 and all(c.isdigit() for c in counts) else None


def _job_size(size: str) -> tuple[int, int | None]:
    """Return both ends of `1-infinite`, `2-64` or `4`."""
    least, _, most = size.partition("-")
    first = int(least) if least.isdigit() else 1
    return max(1, first), int(most or least) if (most or least).isdigit() else None


def with_limits(partitions: tuple[Partition, ...], answer: str) -> tuple[Partition, ...]:
    """Add what only `scontrol --oneliner show partition` says: the default, its QOS, who may use it."""
    rows = {}
    for line in answer.splitlines():
        values = dict(re.findall(r"(\w+)=(\S*)", line))
        if "PartitionName" in values:
            rows[values["PartitionName"]] = values
    return tuple(_with_limits(each, rows[each.name]) if each.name in rows else each for each in partitions)


def _with_limits(partition: Partition, row: dict[str, str]) -> Partition:
    qos = row.get("QoS", "N/A")
    return dataclasses.replace(
        partition,
        default=row.get("Default") == "YES",
        qos=None if qos in ("N/A", "(null)", "") else qos,
        accounts=_names(row.get("AllowAccounts", "ALL")),
        allowed_qos=_names(row.get("AllowQos", "ALL")),
    )


def _names(words: str) -> tuple[str, ...] | None:
    return None if words in ("ALL", "N/A", "(null)", "") else tuple(words.split(","))
