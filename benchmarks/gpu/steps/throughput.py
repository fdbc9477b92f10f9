"""Measure tokens/s, TFLOP/s, MFU and memory, compared with peers on the same GPU in the same call."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import runs
from bench import Bench, Failed, Row

from nemolaunch import arithmetic, catalogue
from nemolaunch.errors import NemolaunchError
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan

STEPS = 15
BATCH = {"llama32_1b": 8, "llama31_8b": 4}
ROOM = 0.90  # of the GPU's memory that the estimate may take, as the estimate itself has an error
PEERS = {
    "torch": (
        "peers/hf_loop.py",
        "transformers' Llama, torch.compile, SDPA, fp32 weights under bf16 autocast",
    ),
    "torch bf16 weights": ("peers/hf_loop.py", "the same with weights and Adam in bf16, no fp32 copies"),
    "torchtitan": ("peers/titan.py", "torchtitan's Llama 3 and loop, torch.compile"),
}


def rows(bench: Bench, recipe: str) -> list[Row]:
    """Return rows of ours in both formats and of each peer, with as many layers as fit on the GPU."""
    full = catalogue.model(recipe).architecture.num_layers
    layers = layers_that_fit(bench, recipe)
    half = max(1, layers // 2)
    ours = functools.partial(_ours, bench, recipe)
    found = [Row("ours bf16", f"{recipe}, {layers} of {full} layers", functools.partial(ours, layers, False))]
    if layers < full:
        what = f"{recipe}, {half} layers: what a layer costs"
        found.append(Row("ours bf16 half", what, functools.partial(ours, half, False)))
    if bench.device == "cpu" or bench.transformer_engine():
        found.append(Row("ours fp8", f"{recipe}, {layers} layers", functools.partial(ours, layers, True)))
        if layers < full:
            what = f"{recipe}, {half} layers in fp8"
            found.append(Row("ours fp8 half", what, functools.partial(ours, half, True)))
    for name, (script, what) in PEERS.items():
        if name == "torchtitan" and bench.device == "cpu":
            continue  # torchtitan needs a GPU
        found.append(Row(name, what, functools.partial(_peer, bench, recipe, layers, name, script)))
    return found


def summary(taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ratios to the peers and, for a model with fewer layers, the extrapolation to all of them."""
    by_name = {row["name"]: row for row in taken}
    found: dict[str, Any] = {}
    ours = by_name.get("ours bf16")
    for name in PEERS:
        if ours and name in by_name:
            rates = ours["tokens_per_s_per_gpu"], by_name[name]["tokens_per_s_per_gpu"]
            found[f"ours / {name}"] = rates[0] / rates[1]
    for form in ("bf16", "fp8"):
        whole, half = by_name.get(f"ours {form}"), by_name.get(f"ours {form} half")
        if whole and half and whole["step_time_s"] > half["step_time_s"]:
            found[f"extrapolated {form}"] = extrapolated(whole, half)
    return found


def extrapolated(whole: dict[str, Any], half: dict[str, Any]) -> dict[str, Any]:
    """Extrapolate to all layers of the model, assuming that each adds the same time."""
    layer_s = (whole["step_time_s"] - half["step_time_s"]) / (whole["layers"] - half["layers"])
    step_s = whole["step_time_s"] + layer_s * (whole["model_layers"] - whole["layers"])
    rate = whole["tokens_per_step"] / step_s
    flops = whole["model_flops_per_token"]
    return {
        "layers": whole["model_layers"],
        "tokens_per_s_per_gpu": rate,
        "tflops_per_gpu": rate * flops["full"] / 1e12,
        "tflops_per_gpu_causal": rate * flops["causal"] / 1e12,
    }


def layers_that_fit(bench: Bench, recipe: str) -> int:
    """Return the number of layers that fit on this GPU by the estimate."""
    full = catalogue.model(recipe).architecture.num_layers
    if bench.tiny:
        return 2
    for layers in range(full, 0, -1):
        if (estimated_bytes(bench, recipe, layers) or 0) <= ROOM * gpu_bytes(bench):
            return layers
    raise Failed(f"not even one layer of {recipe} fits on this GPU")


def gpu_bytes(bench: Bench) -> int:
    """Return the memory of this machine's GPU; 80 GiB if there is none."""
    from nemolaunch.facts import look_at_host

    return look_at_host().gpu_memory_bytes or 80 * 2**30


def estimated_bytes(bench: Bench, recipe: str, layers: int) -> int | None:
    """Return the estimated memory of a job with `layers` layers, or None."""
    plan = planned(bench, flags_of(bench, recipe, layers))
    return plan.estimate.memory.total if plan.estimate and plan.estimate.memory else None


def planned(bench: Bench, flags: dict[str, Any]) -> Plan:
    """Plan a job with these flags. Raises `Failed` if that is impossible."""
    values = {name: str(v) if isinstance(v, Path) else v for name, v in flags.items() if v is not None}
    values["dataset_dir"] = [str(values["dataset_dir"])]
    try:
        return make_plan(Job().with_values(**values))
    except NemolaunchError as error:
        raise Failed(str(error)) from None


def flags_of(bench: Bench, recipe: str, layers: int, fp8: bool = False) -> dict[str, Any]:
    """Return the flags of a measured job."""
    full = catalogue.model(recipe).architecture.num_layers
    name = runs.model(bench, recipe, None if layers == full else layers)
    return runs.base_flags(bench, name, global_batch_size=BATCH[recipe], fp8=fp8)


def _ours(bench: Bench, recipe: str, layers: int, fp8: bool) -> dict[str, Any]:
    flags = flags_of(bench, recipe, layers, fp8)
    name = f"throughput-{recipe}-{layers}-{'fp8' if fp8 else 'bf16'}"
    taken = runs.pretrain(bench, name, flags, stop_at=STEPS)
    return {**runs.figures(taken), **sizes(bench, recipe, layers, flags)}


def sizes(bench: Bench, recipe: str, layers: int, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes of a measured job: layers, tokens per step, FLOPs per token."""
    a = catalogue.model(recipe).architecture
    length = int(flags["seq_length"])
    whole = arithmetic.flops_per_token(a, runs.LLAMA_3_VOCABULARY, length)
    return {
        "layers": layers,
        "model_layers": a.num_layers,
        "seq_length": length,
        "tokens_per_step": length * int(flags["global_batch_size"]),
        "model_flops_per_token": {"full": whole.full, "causal": whole.causal},
    }


def _peer(bench: Bench, recipe: str, layers: int, name: str, script: str) -> dict[str, Any]:
    flags = flags_of(bench, recipe, layers)
    plan = planned(bench, flags)
    out = bench.work / f"{name.replace(' ', '-')}.json"
    out.unlink(missing_ok=True)
    request = {
        "architecture": plan.architecture,
        "vocabulary": runs.LLAMA_3_VOCABULARY if not bench.tiny else 1024,
        "seq_length": int(flags["seq_length"]),
        "global_batch_size": int(flags["global_batch_size"]),
        "micro_batch_size": 1,
        "steps": STEPS if not bench.tiny else 3,
        "device": "cuda" if bench.device == "gpu" else "cpu",
        "compile": not bench.tiny,
        "bf16_weights": name.endswith("bf16 weights"),
        "work": str(bench.work),
        "out": str(out),
    }
    command = [sys.executable, str(Path(__file__).parents[1] / script), json.dumps(request)]
    runs.finished(bench, f"peer-{name.replace(' ', '-')}", command)
    found = json.loads(out.read_text())
    flops = arithmetic.flops_per_token(
        plan.model_row.architecture, request["vocabulary"], request["seq_length"]
    )
    rate = request["global_batch_size"] * request["seq_length"] / found["step_time_s"]
    return {
        **found,
        "tokens_per_s_per_gpu": rate,
        "tflops_per_gpu": rate * flops.full / 1e12,
        "tflops_per_gpu_causal": rate * flops.causal / 1e12,
        "layers": layers,
    }
