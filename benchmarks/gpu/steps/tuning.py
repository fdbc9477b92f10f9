"""Measure what makes the recipe faster: one change at a time, then all that helped together."""

from __future__ import annotations

import functools
import re
from typing import Any

import runs
import yaml
from bench import Bench, Failed, Row

from steps.throughput import STEPS, flags_of

RECIPE = "llama32_1b"
BATCH = 16
GAIN = 1.01  # a change helps if it gains more than runs vary
# name → flags, and environment variables where there is no flag
CHANGES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "micro batch 2": ({"micro_batch_size": 2}, {}),
    "micro batch 4": ({"micro_batch_size": 4}, {}),
    "fp8": ({"fp8": True, "fp8_recipe": "delayed"}, {}),
    "fp8 tensorwise": ({"fp8": True, "fp8_recipe": "tensorwise"}, {}),
    "CUDA graphs": ({"cuda_graphs": True}, {}),
    "without overlap": ({"overlap_grad_reduce": False, "overlap_param_gather": False}, {}),
    "cuDNN's attention": ({"attention_backend": "fused"}, {}),
    "FlashAttention": ({"attention_backend": "flash"}, {}),
}
TINY = ("micro batch 2", "CUDA graphs", "without overlap", "cuDNN's attention")


def rows(bench: Bench) -> list[Row]:
    """Return rows of the unchanged recipe, of each change, and of all changes that helped."""
    names = [name for name in CHANGES if not bench.tiny or name in TINY]
    taken: dict[str, dict[str, Any]] = {}
    found = [Row("as it is", f"{RECIPE}, bf16", functools.partial(_take, bench, "as it is", {}, {}, taken))]
    for name in names:
        flags, variables = CHANGES[name]
        found.append(
            Row(
                name,
                str({**flags, **variables}),
                functools.partial(_take, bench, name, flags, variables, taken),
            )
        )
    found.append(Row("together", "all that helped", functools.partial(_together, bench, taken)))
    return found


def _take(
    bench: Bench,
    name: str,
    flags: dict[str, Any],
    variables: dict[str, str],
    taken: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    job = {**flags_of(bench, RECIPE, 2 if bench.tiny else 16), "global_batch_size": BATCH, **flags}
    run = "tuning-" + re.sub(r"[^A-Za-z0-9]+", "-", name)
    found = runs.figures(runs.pretrain(bench, run, job, stop_at=STEPS, variables=variables))
    taken[name] = {**found, "flags": flags, "variables": variables}
    return taken[name]


def _together(bench: Bench, taken: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if "as it is" not in taken:
        raise Failed("the unchanged recipe was not measured")
    flags, variables = helpful(taken)
    return _take(bench, "together", flags, variables, taken)


def helpful(taken: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the flags and variables of the changes that helped; the best if several set the same flag."""
    base = taken["as it is"]["tokens_per_s_per_gpu"]
    better = [row for row in taken.values() if row["tokens_per_s_per_gpu"] > GAIN * base]
    flags: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for row in sorted(better, key=lambda row: row["tokens_per_s_per_gpu"]):
        flags |= row["flags"]
        variables |= row["variables"]
    return flags, variables


def summary(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the gains over the unchanged recipe, and the flags and variables of the best row."""
    base = next(row for row in taken if row["name"] == "as it is")
    gains = {row["name"]: row["tokens_per_s_per_gpu"] / base["tokens_per_s_per_gpu"] for row in taken}
    best = max(taken, key=lambda row: row["tokens_per_s_per_gpu"])
    return {"gains": gains, "best": best["name"], "flags": best["flags"], "variables": best["variables"]}


def preset(record: dict[str, Any]) -> str:
    """Return the preset that follows from a complete record of this step, as YAML for `--preset`."""
    summary_ = record["summary"]
    best = next(row for row in record["rows"] if row["name"] == summary_["best"])
    kept = (
        "tokens_per_s_per_gpu",
        "tflops_per_gpu",
        "tflops_per_gpu_causal",
        "mfu",
        "mfu_causal",
        "memory_peak_bytes",
    )
    content = {
        "gpu": record["gpus"][0] if record["gpus"] else None,
        "model": RECIPE,
        "source": f"benchmarks/gpu/results, step tuning of {record['date']}",
        "figures": {name: best[name] for name in kept if name in best},
        "flags": {**summary_["flags"]},
    }
    return yaml.safe_dump(content, sort_keys=False)
