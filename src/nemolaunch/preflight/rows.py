"""What a preflight measures, as plain values: a row for each rank and one for each node.

A value of None was not measured: there is nothing to measure it with, or an error is recorded instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CPU = "cpu"  # the device of a rank without a GPU


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as nvidia-smi shows it.

    Attributes:
        memory_used_bytes: before any process of the job used it.
        uncorrected_errors: uncorrectable memory errors since the driver was loaded.
        remap_failed, remap_pending: whether remapping a faulty row of memory failed, or waits for a reset.
        clock_mhz, reasons: of the streaming multiprocessors during the matrix products, and NVML's bit mask of what
            limited the clock then.
    """

    index: int
    name: str
    uuid: str = ""
    driver: str = ""
    memory_used_bytes: int | None = None
    uncorrected_errors: int | None = None
    remap_failed: bool | None = None
    remap_pending: bool | None = None
    clock_mhz: int | None = None
    max_clock_mhz: int | None = None
    reasons: int | None = None


@dataclass(frozen=True, kw_only=True)
class Files:
    """The speed of a file system from one node.

    Attributes:
        what: `run folder` or `data`.
        write_bytes_per_s: including the flush to disk; None where nothing is written.
    """

    what: str
    path: str
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class RankRow:
    """What one rank measured. `device`: name of its GPU, or `cpu`."""

    rank: int
    node: str
    device: str = CPU
    flops_per_s: float | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NodeRow:
    """What the first rank of a node measured.

    Attributes:
        versions: of Python and the packages that train.
        system: of the kernel and the GPU driver.
        clock_ahead_s: how far its clock is ahead of that of rank 0's node.
        within_bytes_per_s: bus bandwidth of an all-reduce over the node's ranks.
        between_bytes_per_s: the same over the ranks of this node and of one other, by the other's name.
        errors: what could not be measured.
    """

    node: str
    num_ranks: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    system: dict[str, str] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    files: tuple[Files, ...] = ()
    clock_ahead_s: float | None = None
    within_bytes_per_s: float | None = None
    between_bytes_per_s: dict[str, float] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All measurements of one preflight. `all_bytes_per_s`: bus bandwidth of an all-reduce over all ranks."""

    ranks: tuple[RankRow, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    all_bytes_per_s: float | None = None

    @property
    def has_errors(self) -> bool:
        """Whether something could not be measured."""
        return any(row.errors for row in self.ranks) or any(row.errors for row in self.nodes)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Measured:
        """Return measurements from their values in JSON."""
        return cls(
            ranks=tuple(_rank(row) for row in values["ranks"]),
            nodes=tuple(_node(row) for row in values["nodes"]),
            all_bytes_per_s=values["all_bytes_per_s"],
        )


def _rank(values: Mapping[str, Any]) -> RankRow:
    return RankRow(**{**values, "errors": tuple(values["errors"])})


def _node(values: Mapping[str, Any]) -> NodeRow:
    """Return the row of a node from its values in JSON."""
    return NodeRow(
        **{
            **values,
            "gpus": tuple(Gpu(**row) for row in values["gpus"]),
            "files": tuple(Files(**row) for row in values["files"]),
            "errors": tuple(values["errors"]),
        }
    )
