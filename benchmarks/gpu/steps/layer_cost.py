"""Measure our overhead: our job compared with the same NeMo recipe started by hand, in turns."""

from __future__ import annotations

import functools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import runs
from bench import Bench, Row

from steps.throughput import flags_of, planned

RECIPE = "llama32_1b"
STEPS = 30
ROUNDS = 2


def rows(bench: Bench) -> list[Row]:
    """Return the rows: ours, by hand, ours, by hand."""
    found = []
    for number in range(1, ROUNDS + 1):
        what = f"{RECIPE}, bf16, {steps(bench)} steps"
        found.append(Row(f"ours {number}", what, functools.partial(_ours, bench, number)))
        found.append(Row(f"by hand {number}", what, functools.partial(_by_hand, bench, number)))
    return found


def summary(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how much longer a step of ours takes, relative to one by hand."""
    times = {kind: [row["step_time_s"] for row in taken if row["name"].startswith(kind)]
             for kind in ("ours", "by hand")}  # fmt: skip
    ours, hand = (statistics.median(times[kind]) for kind in ("ours", "by hand"))
    return {"ours_s": ours, "by_hand_s": hand, "cost": ours / hand - 1}


def steps(bench: Bench) -> int:
    """Return the number of steps in each round."""
    return 10 if bench.tiny else STEPS


def _ours(bench: Bench, number: int) -> dict[str, Any]:
    flags = flags_of(bench, RECIPE, _layers(bench))
    return runs.figures(runs.pretrain(bench, f"layer-cost-{number}", flags, stop_at=steps(bench)))


def _by_hand(bench: Bench, number: int) -> dict[str, Any]:
    runs.data(bench)
    plan = planned(bench, flags_of(bench, RECIPE, _layers(bench)))
    out = bench.work / f"by-hand-{number}.json"
    request = {
        "recipe": plan.recipe,
        "overrides": plan.overrides,
        "paths": [prefix for _, prefix in plan.blend],
        "tokenizer": str(runs.tokenizer(bench)),
        "seq_length": plan.seq_length,
        "global_batch_size": plan.job.batch.global_batch_size,
        "steps": steps(bench),
        "device": bench.device,
        "transformer_engine": bench.transformer_engine(),
        "work": str(bench.work / "by-hand"),
        "out": str(out),
    }
    script = Path(__file__).parents[1] / "peers" / "recipe_by_hand.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "--standalone"]
    launcher += ["--local-addr", "127.0.0.1"]
    runs.finished(bench, f"by-hand-{number}", [*launcher, str(script), json.dumps(request)])
    return dict(json.loads(out.read_text()))


def _layers(bench: Bench) -> int:
    return 2 if bench.tiny else 16
