"""Measure what observing a run costs: the time spent in our callbacks, relative to the steps they observe.

    python benchmarks/observing.py [--steps 60] [--threads 2]

Rehearses on two ranks, so that the comparison of ranks is included (every 2 steps instead of 50), and times
every call of our callbacks on the first rank. A step of a real job on a GPU takes as long or longer, and
writes the same metrics.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rehearsal import BATCH, prepared
from rich.console import Console
from rich.table import Table
from startup import tokenise

WARM_UP = 5
RANKS = 2
COMPARED_EVERY = 2


def train(plan_file: str) -> dict[str, Any]:
    """Train the plan in this rank. Return the seconds of each step, and of each callback in each step."""
    from lightning.pytorch import Callback

    from nemolaunch import cpu

    cpu.install()
    from nemolaunch.nemo2 import watch
    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan
    from nemolaunch.ranks import comparison

    spent: dict[str, list[float]] = defaultdict(list)
    steps: list[float] = []
    own = watch.callbacks_of

    def timed(callbacks: list[Callback]) -> list[Callback]:
        for callback in callbacks:
            _time_hooks(callback, spent[type(callback).__name__])
        return callbacks

    class Steps(Callback):
        """Times steps, from one call to the next. Runs after our callbacks that precede a checkpoint."""

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            steps.append(time.perf_counter())
            for seconds in spent.values():
                seconds.append(0.0)

    comparison.EVERY_STEPS = COMPARED_EVERY

    def timed_all(plan: Plan) -> tuple[list[Callback], list[Callback]]:
        before, after = own(plan)
        return timed(before), timed(after)

    watch.callbacks_of = timed_all
    run_plan(Plan.load(Path(plan_file)), callbacks=(Steps(),))
    return {"steps": [b - a for a, b in itertools.pairwise(steps)], "spent": dict(spent)}


def _time_hooks(callback: Any, seconds: list[float]) -> None:
    for name in dir(callback):
        hook = getattr(callback, name)
        if not name.startswith("on_") or not callable(hook):
            continue

        def timed(*args: Any, hook: Any = hook, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return hook(*args, **kwargs)
            finally:
                if seconds:
                    seconds[-1] += time.perf_counter() - began

        setattr(callback, name, timed)


def measure(folder: Path, data: str, steps: int, threads: int) -> dict[str, Any]:
    """Train in separate processes. Return the first rank's results."""
    plan = prepared(folder, data, "fp32", steps)
    content = json.loads(Path(plan).read_text())
    content["world_size"] = RANKS
    content["values"] |= {"num_gpus": RANKS, "global_batch_size": RANKS * BATCH}
    Path(plan).write_text(json.dumps(content))
    result = folder / "result.json"
    words = ["torchrun", f"--nproc-per-node={RANKS}", __file__, "--plan", plan, "--result", str(result)]
    environment = {"OMP_NUM_THREADS": str(max(1, threads // RANKS)), "CUDA_VISIBLE_DEVICES": ""}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(folder / "log", "w+", encoding="utf-8") as log:
        done = subprocess.run(
            words, stdout=log, stderr=log, env={**os.environ, **environment, "PATH": path}, check=False
        )
        if done.returncode:
            log.seek(0)
            sys.exit("".join(log.readlines()[-60:]))
    return dict(json.loads(result.read_text()))


def main() -> None:
    """Measure, and print a table; with `--plan`, train in one rank."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--steps", type=int, default=60, help=f"the first {WARM_UP} are not counted")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--plan", help=argparse.SUPPRESS)
    arguments.add_argument("--result", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.plan:
        found = train(given.plan)
        if os.environ["RANK"] == "0":
            Path(given.result).write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        tokenise(name)
        found = measure(Path(name), name, given.steps, given.threads)
    step = statistics.fmean(found["steps"][WARM_UP:])
    size = f"{RANKS * BATCH} x 512 tokens per step"
    title = f"Llama of 10.6M parameters, {size}, mean of {given.steps - WARM_UP} steps"
    table = Table(title=title)
    for heading in ("callback", "ms per step", "share of a step"):
        table.add_column(heading, justify="left" if heading == "callback" else "right")
    total = 0.0
    for callback, seconds in found["spent"].items():
        mean = statistics.fmean(seconds[WARM_UP:-1])
        label = callback
        if callback == "RankWatch":
            label, mean = "RankWatch, every 50 steps", mean * COMPARED_EVERY / 50
        total += mean
        table.add_row(label, f"{mean * 1e3:.3f}", f"{mean / step:.3%}")
    table.add_row("total", f"{total * 1e3:.3f}", f"{total / step:.3%}", style="bold")
    table.add_row("step", f"{step * 1e3:.1f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
