"""The measuring process of one rank. It prints what is wrong, or its error, as JSON for the rank that started it.

    python -m nemolaunch.preflight.rank --run FOLDER --attempt NAME --device gpu|cpu --tolerance X [--data FILE]

It is a process of its own so that neither memory of the GPU nor communicators are left to the training. Exit code: 0 if
all nodes are fit, 3 if one is not, 1 if they could not be measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.preflight import result
from nemolaunch.preflight.judge import UNFIT_CODE, Trouble, judge, unfit
from nemolaunch.preflight.meeting import Absent, meet, nodes_of
from nemolaunch.preflight.place import Place
from nemolaunch.preflight.rows import Measured, NodeRow
from nemolaunch.run.folder import RunDir
from nemolaunch.system import processes


def main(argv: list[str] | None = None) -> int:
    """Measure, in this rank of many. Return the exit code."""
    processes.signal_on_parents_death(signal.SIGKILL)
    args = _parser().parse_args(argv)
    run, place = RunDir(args.run), Place.here()
    run.preflight.mkdir(parents=True, exist_ok=True)
    try:
        with meet(run, args.attempt, place):
            troubles = _measured(run, place, args)
    except Absent as absent:
        _note_absent(run, place, args, absent)
        raise
    print(json.dumps([dataclasses.asdict(trouble) for trouble in troubles], ensure_ascii=False))
    sys.stdout.flush()
    return UNFIT_CODE if unfit(troubles) else 0


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser()
    p.add_argument("--run", type=Path, required=True)
    p.add_argument("--attempt", required=True)
    p.add_argument("--device", choices=("gpu", "cpu"), required=True)
    p.add_argument("--tolerance", type=float, required=True)
    p.add_argument("--data", type=Path)
    return p


def _measured(run: RunDir, place: Place, args: argparse.Namespace) -> tuple[Trouble, ...]:
    """Measure and judge. Nodes that fail alone are not given collectives, which would wait for them."""
    from nemolaunch.preflight.measure import Measurement, gathered

    measurement = Measurement(place, run.preflight, args.data, args.device)
    rank, node = measurement.alone()
    measured = gathered(rank, node)
    if not _shared(measured is not None and measured.has_errors):
        node, everyone = measurement.together(node)
        measured = gathered(rank, node, everyone)
    troubles: tuple[Trouble, ...] = ()
    if measured is not None:
        troubles = judge(measured, args.tolerance)
        result.save(run, result.new(args.attempt, args.tolerance, measured, troubles))
    return tuple(_shared(troubles))


def _shared(value: Any) -> Any:
    """Return rank 0's value."""
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def _note_absent(run: RunDir, place: Place, args: argparse.Namespace, absent: Absent) -> None:
    """Record the nodes that did not come as sick, in rank 0."""
    nodes = nodes_of(absent.ranks, place.world_size)
    measured = Measured(nodes=tuple(NodeRow(node=node, errors=(str(absent),)) for node in nodes))
    result.save(run, result.new(args.attempt, args.tolerance, measured, judge(measured, args.tolerance)))


if __name__ == "__main__":
    try:
        code = main()
    except (NemolaunchError, RuntimeError, ArithmeticError, OSError) as error:
        print(json.dumps({"error": " ".join(str(error).split())}, ensure_ascii=False))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # aborted communicators can block the interpreter's exit
