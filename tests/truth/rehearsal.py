"""Comparison of the checks with reality: random small jobs, trained on the CPU for one step."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import check_jobs
from forkserver import ForkServer, JobFailed

from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.launching.prepare import prepare
from nemolaunch.planning import Plan, make_plan
from nemolaunch.resolve.recompute import MODULES
from truth.silent import SILENT

MOST_PROCESSES = 4
END_OF_TEXT = 1  # of the sample tokenizer
MODELS = {path.stem: path for path in sorted((Path(__file__).parent / "models").glob("*.yaml"))}


def draw(rng: random.Random) -> dict[str, Any]:
    """Draw a layout of up to four processes with batch and recompute flags, sometimes invalid."""
    values: dict[str, Any] = {
        "tensor_model_parallel_size": rng.choice((1, 1, 2, 4, 3)),
        "pipeline_model_parallel_size": rng.choice((1, 1, 2, 4, 3)),
        "context_parallel_size": rng.choice((1, 1, 1, 2)),
        "expert_model_parallel_size": rng.choice((1, 1, 1, 2, 3)),
        "sequence_parallel": rng.random() < 0.5,
        "num_gpus": rng.choice((1, 2, 4, 4)),
        "global_batch_size": rng.choice((16, 8, 12, 6)),
        "micro_batch_size": rng.choice((1, 1, 2)),
        "seq_length": rng.choice((64, 64, 64, 62, 63)),
    }
    if rng.random() < 0.3:
        values["virtual_pipeline_model_parallel_size"] = rng.choice((2, 2, 4))
    if rng.random() < 0.3:
        values["recompute_granularity"] = rng.choice(("full", "selective"))
        values["recompute_method"] = rng.choice(("uniform", "block", None))
        values["recompute_num_layers"] = rng.choice((1, 2, None))
        if values["recompute_granularity"] == "selective":
            values["recompute_modules"] = tuple(rng.sample(MODULES, k=rng.choice((1, 1, 2))))
    if rng.random() < 0.3:
        values["reset_attention_mask"] = rng.random() < 0.8
        values["reset_position_ids"] = rng.random() < 0.3
        values["eod_mask_loss"] = rng.random() < 0.5
    if rng.random() < 0.1:
        values["moe_z_loss_coeff"] = 1e-3
    if rng.random() < 0.2:
        values["optimizer"] = "sgd"
        values["disable_dist_optim"] = rng.random() < 0.7
    if rng.random() < 0.3:
        values["attention_backend"] = rng.choice(("local", "local", "fused"))
        values["overlap_grad_reduce"] = rng.choice((None, True, False))
        values["overlap_param_gather"] = rng.choice((None, True, False))
    return values


def plan_of(folder: Path, values: dict[str, Any], model: str) -> Plan:
    """Return the plan of a drawn job, checked but not refused."""
    folder.mkdir(parents=True, exist_ok=True)
    data = check_jobs.write_data(folder, num_tokens=50_000, num_documents=1000, end=END_OF_TEXT)
    fixed = {
        "model_name": str(MODELS[model]),
        "hf_model_id": check_jobs.TOKENIZER,
        "dataset_dir": [data],
        "output_dir": str(folder / "run"),
        "precision": "fp32",
        "max_steps": 1,
        "warmup_steps": 0,
        "limit_val_batches": 0,
        "no_async_save": True,
    }
    return make_plan(Job().with_values(**{**fixed, **values}))


def chosen(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a drawn job; invalid ones are kept half of the time, and only if they have a single error."""
    while True:
        model, values = rng.choice(list(MODELS)), draw(rng)
        job = check_jobs.job(str(MODELS[model]), executor="local", **values)
        found = errors(check_jobs.check(check_jobs.resolved(job)))
        layout = values["tensor_model_parallel_size"] * values["pipeline_model_parallel_size"]
        if layout * values["context_parallel_size"] > MOST_PROCESSES:
            continue
        if not found or (len(found) == 1 and rng.random() < 0.5):
            return model, values


def rehearse(server: ForkServer, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Train `count` jobs for a step. Return how many ran or failed as the checks predicted, and the others."""
    rng = random.Random(seed)
    result: dict[str, Any] = {"jobs": count, "ran": 0, "failed": 0, "silent": 0, "disagreements": []}
    for number in range(count):
        model, values = chosen(rng)
        plan = plan_of(folder / f"job{number}", values, model)
        ours = sorted({finding.code for finding in errors(plan.findings)})
        theirs = _trained(server, plan)
        if bool(ours) == bool(theirs):
            result["failed" if ours else "ran"] += 1
        elif ours and set(ours) <= SILENT.keys():
            result["silent"] += 1
        else:
            result["disagreements"].append({"model": model, "values": values, "ours": ours, "theirs": theirs})
    return result


def _trained(server: ForkServer, plan: Plan) -> str | None:
    """Train a plan. Return None if it ran, else the end of its ranks' output."""
    prepare(plan)
    try:
        server.run(
            "e2e.train_plan:train", {"plan_file": str(plan.run.plan)}, nproc=plan.world_size, timeout=90
        )
    except JobFailed as failure:
        return str(failure)[-600:]
    return None
