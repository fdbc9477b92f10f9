"""Stands in for a training rank in tests of the batch script: pretends to save checkpoints, leaves or dies.

worker.py FOLDER BACKEND: the behaviour of this start is read from FOLDER/behaviour.json
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def save(folder: Path, step: int) -> None:
    """Something that looks like a checkpoint of the backend; NeMo 2 counts steps from 0."""
    checkpoints = folder / "checkpoints"
    if sys.argv[2] == "bridge":
        (checkpoints / f"iter_{step + 1:07d}").mkdir(parents=True, exist_ok=True)
        (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step + 1))
    else:
        (checkpoints / f"m--step={step}-consumed_samples={step}.0").mkdir(parents=True, exist_ok=True)


def next_step(folder: Path) -> int:
    names = [path.name for path in (folder / "checkpoints").glob("*-step=*")]
    nemo = [int(name.split("-step=")[1].split("-")[0]) + 1 for name in names]
    bridge = [int(path.name.removeprefix("iter_")) for path in (folder / "checkpoints").glob("iter_*")]
    return max([*nemo, *bridge], default=0)


def main() -> int:
    folder = Path(sys.argv[1])
    first = os.environ["SLURM_PROCID"] == "0"
    starts = len((folder / "slurm" / "starts").read_text().splitlines())
    behaviours = json.loads((folder / "behaviour.json").read_text())
    behaviour = behaviours[min(starts, len(behaviours)) - 1]
    if first:
        (folder / f"working-{starts}").touch()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    if behaviour.startswith("unfit "):  # as a preflight that found these nodes slow
        if first:
            attempt = f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
            (folder / "preflight").mkdir(exist_ok=True)
            (folder / "preflight" / "unfit").write_text(f"{attempt}\n{behaviour.split()[1]}\n")
        time.sleep(0.5)
        return 3
    if behaviour == "crash":
        return 3
    if behaviour == "progress and crash":
        if first:
            save(folder, next_step(folder))
        time.sleep(0.5)
        return 3
    if behaviour == "leave":
        if first:
            save(folder, next_step(folder))
        return 0
    if behaviour in ("finish", "look and finish", "finish and linger"):
        if behaviour == "look and finish" and first:
            seen = {"folder": os.getcwd(), "root": sorted(os.listdir("/")), "environment": dict(os.environ)}
            (folder / "seen.json").write_text(json.dumps(seen))
        if first:
            save(folder, next_step(folder))
            (folder / "finished.json").write_text('{"step": 100}')
        if behaviour == "finish and linger":
            time.sleep(5)
        return 0
    end = time.monotonic() + 600
    while (not stop or behaviour == "ignore") and time.monotonic() < end:  # "run": until it is asked to leave
        time.sleep(0.1)
    if first:
        (folder / "slurm" / "ask").touch()
        time.sleep(3)
        print("worker: end", (folder / "slurm" / "end").read_text(), end="", flush=True)
        save(folder, next_step(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
