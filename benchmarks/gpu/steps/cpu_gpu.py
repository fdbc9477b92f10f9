"""Compare CPU and GPU: the same job in fp32 on both, with checkpoints moved from one to the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import runs
from bench import Bench, Failed, Row

STEPS, EVERY = 40, 10
# Full fp32: libraries otherwise round the inputs of fp32 products to 10 bits of mantissa
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}
MODEL = {
    "base": "llama3_8b", "num_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "num_query_groups": 4,
    "ffn_hidden_size": 704, "seq_length": 256, "init_method_std": 0.02,
}  # fmt: skip


def rows(bench: Bench) -> list[Row]:
    """Return the rows, each of which needs those before it."""
    there = bench.device.upper()
    return [
        Row("cpu", f"{STEPS} steps on the CPU", lambda: _cpu(bench)),
        Row("there", f"from the CPU's step {EVERY} on the {there}", lambda: _there(bench)),
        Row("back", f"from the {there}'s step {2 * EVERY} on the CPU", lambda: _back(bench)),
    ]


def summary(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the largest relative difference of a loss over all steps that both trained."""
    return {row["name"]: row["largest_relative_difference"] for row in taken if row["name"] != "cpu"}


def _flags(bench: Bench, device: str, **more: Any) -> dict[str, Any]:
    model = bench.work / "fp32-llama.yaml"
    form = {**MODEL, "num_layers": 2, "hidden_size": 64} if bench.tiny else MODEL
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_text("".join(f"{key}: {value}\n" for key, value in form.items()))
    length = 64 if bench.tiny else 256
    every = {"max_steps": STEPS, "checkpoint_every": EVERY, "keep_latest": -1, "no_async_save": True}
    flags = runs.base_flags(bench, str(model), precision="fp32", seq_length=length, global_batch_size=8)
    return {**flags, **every, "device": device, "lr": 1e-3, **more}


def _run(bench: Bench, name: str) -> Path:
    return bench.work / "runs" / f"fp32-{name}"


def _trained(bench: Bench, name: str, device: str, **more: Any) -> list[dict[str, Any]]:
    shutil.rmtree(_run(bench, name), ignore_errors=True)
    return runs.pretrain(bench, f"fp32-{name}", _flags(bench, device, **more), variables=EXACT)


def _cpu(bench: Bench) -> dict[str, Any]:
    return runs.figures(_trained(bench, "cpu", "cpu"))


def _there(bench: Bench) -> dict[str, Any]:
    start = runs.checkpoint(_run(bench, "cpu"), EVERY)
    taken = _trained(bench, "there", bench.device, resume=start)
    return {**runs.figures(taken), **_compared(bench, "cpu", taken, EVERY)}


def _back(bench: Bench) -> dict[str, Any]:
    start = runs.checkpoint(_run(bench, "there"), 2 * EVERY)
    taken = _trained(bench, "back", "cpu", resume=start)
    return {**runs.figures(taken), **_compared(bench, "there", taken, 2 * EVERY)}


def _compared(bench: Bench, other: str, taken: list[dict[str, Any]], after: int) -> dict[str, Any]:
    """Compare the losses of the same steps in both runs."""
    known = {row["step"]: row["loss"] for row in runs.rows(_run(bench, other))}
    if [row["step"] for row in taken] != list(range(after + 1, STEPS + 1)):
        raise Failed(f"the run did not train exactly steps {after + 1} to {STEPS}")
    apart = [abs(row["loss"] - known[row["step"]]) / abs(known[row["step"]]) for row in taken]
    return {
        "compared_steps": len(apart),
        "largest_relative_difference": max(apart),
        "difference_at_last_step": apart[-1],
        "losses": [row["loss"] for row in taken],
        "losses_of_the_other": [known[row["step"]] for row in taken],
    }
