"""All measurements of this rank, in an order in which the ranks of all nodes do the same thing at the same time."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from nemolaunch.preflight import clocks, files, gpus, speed, versions
from nemolaunch.preflight.place import Place
from nemolaunch.preflight.rows import Gpu, Measured, NodeRow, RankRow

LONGEST_ERROR = 300
Value = TypeVar("Value")


class Measurement:
    """The measurements of one rank, of all in the meeting.

    Args:
        folder: in the run folder, to write to.
        data: a data file to read, if the job has one.
        kind: `gpu` or `cpu`.
    """

    def __init__(self, place: Place, folder: Path, data: Path | None, kind: str) -> None:
        names: list[Any] = [None] * place.world_size
        dist.all_gather_object(names, place.node)
        self._place, self._folder, self._data, self._kind = place, folder, data, kind
        self._ranks_of: dict[str, list[int]] = {}
        for rank, node in enumerate(names):
            self._ranks_of.setdefault(node, []).append(rank)
        self._nodes = list(self._ranks_of)
        self._leads = self._ranks_of[place.node][0] == place.rank
        self._errors: list[str] = []
        self._node_errors: list[str] = []
        self._device: speed.Device | None = None

    def alone(self) -> tuple[RankRow, NodeRow | None]:
        """Measure what needs no collectives of the device. Return this rank's row and, from its first, the node's."""
        own, lead = len(self._ranks_of[self._place.node]), self._leads
        before = (self._tried(self._node_errors, "nvidia-smi", gpus.idle) or ()) if lead else ()
        dist.barrier()  # other ranks of the node do not use its GPUs before this
        self._device = self._tried(
            self._errors, "device", lambda: speed.device_of(self._kind, self._place.local_rank, own)
        )
        dist.barrier()
        flops, loaded = self._products(before)
        rank = RankRow(
            rank=self._place.rank,
            node=self._place.node,
            device=self._device.name if self._device else self._kind,
            flops_per_s=flops,
            errors=tuple(self._errors),
        )
        dist.barrier()
        speeds = self._files() if lead else []
        ahead = self._clock()
        if not lead:
            return rank, None
        return rank, NodeRow(
            node=self._place.node,
            num_ranks=own,
            versions=versions.of_packages(),
            system=versions.of_system(before),
            gpus=loaded,
            files=tuple(speeds),
            clock_ahead_s=ahead,
            errors=tuple(self._node_errors),
        )

    def _products(self, before: tuple[Gpu, ...]) -> tuple[float | None, tuple[Gpu, ...]]:
        """Multiply; in the first rank of a node, look at its GPUs meanwhile."""
        found: list[tuple[Gpu, ...]] = []
        look = threading.Thread(target=lambda: found.append(gpus.under_load(before)))
        if before:
            look.start()
        device = self._device
        flops = (
            self._tried(self._errors, "matrix product", lambda: speed.products(device)) if device else None
        )
        if before:
            look.join()
        return flops, found[0] if found else before

    def _files(self) -> list[files.Files]:
        number, data = self._nodes.index(self._place.node), self._data
        found = [
            self._tried(
                self._node_errors,
                "run folder",
                lambda: files.run_folder(self._folder, self._place.node),
            )
        ]
        if data is not None:
            share = number / len(self._nodes)
            found.append(self._tried(self._node_errors, "data", lambda: files.data(data, share)))
        return [each for each in found if each is not None]

    def _clock(self) -> float | None:
        """Compare the clocks of all nodes with that of rank 0, one after the other."""
        leaders = [ranks[0] for ranks in self._ranks_of.values()]
        if self._place.rank == 0:
            for leader in leaders[1:]:
                clocks.answer(leader)
            return 0.0
        # rank 0 answers them in this order: the others' messages wait
        return -clocks.compare(0) if self._leads else None

    def together(self, row: NodeRow | None) -> tuple[NodeRow | None, float | None]:
        """Measure collectives: within nodes, between neighbours, over all ranks. Return the node's row with its own."""
        device = self._device
        assert device is not None  # otherwise rank 0 has ended the preflight
        node = self._place.node
        within = speed.all_reduce(device, speed.group_of(device, self._ranks_of[node]))
        between: dict[str, float] = {}
        for pairs in speed.rounds(len(self._nodes)):
            dist.barrier()
            for pair in pairs:
                both = [self._nodes[i] for i in pair]
                if node in both:
                    group = speed.group_of(
                        device, sorted(rank for each in both for rank in self._ranks_of[each])
                    )
                    between[next(each for each in both if each != node)] = (
                        speed.all_reduce(device, group) or 0.0
                    )
        dist.barrier()
        everyone = speed.all_reduce(device, speed.group_of(device, list(range(self._place.world_size))))
        if row is None:
            return None, everyone
        row = dataclasses.replace(row, within_bytes_per_s=within, between_bytes_per_s=between)
        return row, everyone

    def _tried(self, errors: list[str], what: str, work: Callable[[], Value]) -> Value | None:
        """Return what the work returns; None, and the error noted, if it fails."""
        try:
            return work()
        except Exception as error:  # whatever a driver or file system comes up with
            text = " ".join(str(error).split()) or type(error).__name__
            errors.append(f"{what} failed: {text[:LONGEST_ERROR]}")
            return None


def gathered(rank: RankRow, node: NodeRow | None, all_bytes_per_s: float | None = None) -> Measured | None:
    """Return the measurements of all ranks in rank 0; None in the others."""
    world, first = dist.get_world_size(), dist.get_rank() == 0
    rows: list[Any] | None = [None] * world if first else None
    dist.gather_object((rank, node), rows)
    if rows is None:
        return None
    return Measured(
        ranks=tuple(row for row, _ in rows),
        nodes=tuple(row for _, row in rows if row is not None),
        all_bytes_per_s=all_bytes_per_s,
    )
