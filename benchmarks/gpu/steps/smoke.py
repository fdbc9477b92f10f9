"""Check that everything works: train on real data, stop, resume, export, generate."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import runs
from bench import ROOT, Bench, Failed, Row

STEPS = 20
EVERY = 10
NAME = "smoke"


def rows(bench: Bench) -> list[Row]:
    """Return the rows, each of which needs those before it."""
    model = "llama32_1b"
    return [
        Row("train", f"{model} in bf16 to step {EVERY + 2}, then Ctrl-C", lambda: _train(bench, model)),
        Row("resume", f"the same command again, to step {STEPS}", lambda: _resume(bench, model)),
        Row("export", "its last checkpoint to Hugging Face", lambda: _export(bench)),
        Row("generate", "plain transformers continues a prompt", lambda: _generate(bench)),
    ]


def summary(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the names of the rows that worked."""
    return {"worked": [row["name"] for row in taken]}


def _run(bench: Bench) -> Path:
    return bench.work / "runs" / NAME


def _flags(bench: Bench, model: str) -> dict[str, Any]:
    more = {"max_steps": STEPS, "checkpoint_every": EVERY, "keep_latest": 1, "no_async_save": True}
    return runs.base_flags(bench, runs.model(bench, model), **more)


def _train(bench: Bench, model: str) -> dict[str, Any]:
    shutil.rmtree(_run(bench), ignore_errors=True)
    taken = runs.pretrain(bench, NAME, _flags(bench, model), stop_at=EVERY + 2)
    runs.checkpoint(_run(bench), EVERY)
    return runs.figures(taken)


def _resume(bench: Bench, model: str) -> dict[str, Any]:
    before = {row["step"]: row["loss"] for row in runs.rows(_run(bench))}
    taken = runs.pretrain(bench, NAME, _flags(bench, model))
    steps = [row["step"] for row in taken]
    if not steps or steps[0] != EVERY + 1 or steps[-1] != STEPS:
        raise Failed(f"the run trained steps {steps[:1]} to {steps[-1:]}, not {EVERY + 1} to {STEPS}")
    again = [abs(row["loss"] - before[row["step"]]) for row in taken if row["step"] in before]
    return {**runs.figures(taken), "repeated_steps": len(again), "largest_loss_difference": max(again)}


def _export(bench: Bench) -> dict[str, Any]:
    (last,) = (_run(bench) / "checkpoints").glob("*-last")
    target = bench.work / "hf"
    shutil.rmtree(target, ignore_errors=True)
    door = ROOT / "ckpt_conversion" / "convert_from_nemo2_to_hf.py"
    words = ["--source", str(last), "--output-path", str(target)]
    device = bench.device if bench.transformer_engine() else "cpu"  # NeMo converts with it, or without a GPU
    runs.finished(bench, "export", [sys.executable, str(door), *words], device)
    return {"bytes": sum(file.stat().st_size for file in target.iterdir())}


def _generate(bench: Bench) -> dict[str, Any]:
    words = ["generate", str(bench.work / "hf"), "--prompt", "It was a", "--max-new-tokens", "20"]
    said = runs.finished(bench, "generate", [sys.executable, "-m", "nemolaunch.cli.main", *words])
    if not said.strip():
        raise Failed("it generated nothing")
    return {"said": said.strip()[-200:]}
