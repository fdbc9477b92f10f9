"""How the measuring processes of all ranks find each other: through a file in the run folder, and a TCP store.

The store is not that of the training: its port would still be taken when the training starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from nemolaunch.errors import NemolaunchError
from nemolaunch.preflight.place import Place
from nemolaunch.run.attempts import expand_nodes
from nemolaunch.run.folder import RunDir, read_json
from nemolaunch.system.atomic_files import write_json

TIMEOUT_S = 600.0  # ranks import torch from a file system that all of them share
POLLS_S = (0.2, 5.0)  # first and longest interval: thousands of ranks poll one file system


class Absent(NemolaunchError):
    """Some ranks did not come to the meeting. `ranks` are their numbers."""

    def __init__(self, ranks: list[int], run: RunDir) -> None:
        named = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
        super().__init__(
            f"rank(s) {named} did not reach rank 0 within {TIMEOUT_S:.0f} s: is {run.root} the same folder there, and "
            "can the nodes connect to each other?"
        )
        self.ranks = ranks


@contextmanager
def meet(run: RunDir, attempt: str, place: Place, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Join all ranks of this attempt in a gloo process group, until the block ends.

    Raises:
        Absent: in rank 0: some ranks did not come.
        NemolaunchError: in other ranks: rank 0 did not come.
    """
    file = run.preflight / f"meeting-{attempt}.json"
    try:
        store = _host(file, run, place, timeout_s) if place.rank == 0 else _join(file, place, timeout_s)
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=timeout_s),
        )
        yield
        dist.barrier()  # nobody leaves while another still asks rank 0's store
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        if place.rank == 0:
            file.unlink(missing_ok=True)


def _host(file: Path, run: RunDir, place: Place, timeout_s: float) -> Any:
    store = dist.TCPStore(
        "127.0.0.1",
        0,
        place.world_size,
        is_master=True,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
    )
    write_json(file, {"host": place.node, "port": store.port})
    expected = {f"here/{rank}": rank for rank in range(1, place.world_size)}
    try:
        if expected:
            store.wait(list(expected), timedelta(seconds=timeout_s))
    except RuntimeError:  # torch's own error for a timeout
        raise Absent([rank for key, rank in expected.items() if not store.check([key])], run) from None
    store.set("all", "1")
    return store


def _join(file: Path, place: Place, timeout_s: float) -> Any:
    end, poll_s = time.monotonic() + timeout_s, POLLS_S[0]
    while (found := read_json(file)) is None:
        if time.monotonic() > end:
            raise NemolaunchError(f"rank 0 has not written {file}: is it the same folder on every node?")
        time.sleep(poll_s)
        poll_s = min(1.5 * poll_s, POLLS_S[1])
    host = "127.0.0.1" if found["host"] == place.node else str(found["host"])
    try:
        store = dist.TCPStore(
            host,
            int(found["port"]),
            place.world_size,
            is_master=False,
            timeout=timedelta(seconds=timeout_s),
            wait_for_workers=False,
        )
        store.set(f"here/{place.rank}", place.node)
        store.wait(["all"], timedelta(seconds=2 * timeout_s))
    except RuntimeError as error:
        raise NemolaunchError(
            f"{host}, where rank 0 is, cannot be reached: {str(error).splitlines()[0]}"
        ) from None
    return store


def nodes_of(ranks: list[int], world_size: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the nodes of ranks that did not come, by Slurm's list of nodes; none where there is no such list.

    Ranks of a node are numbered consecutively.
    """
    nodes = expand_nodes(environment.get("SLURM_JOB_NODELIST", ""))
    if not nodes or world_size % len(nodes):
        return []
    each = world_size // len(nodes)
    return list(dict.fromkeys(nodes[rank // each] for rank in ranks))
