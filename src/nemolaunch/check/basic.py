"""Rules without which nothing can start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.findings import Finding, Fix, Severity
from nemolaunch.resolve import Resolved


def check(resolved: Resolved) -> list[Finding]:
    """All findings of a resolved job."""
    return [finding for rule in (_names, _layout, _batch, _data) for finding in rule(resolved)]


def _error(code: str, message: str, rule: str = "", *fixes: Fix) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, message=message, rule=rule, fixes=fixes)


def _names(resolved: Resolved) -> Iterator[Finding]:
    name = resolved.job.launch.experiment
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "pretraining"
        yield _error(
            "experiment-name",
            f"--experiment {name!r} has characters other than letters, digits, '.', '_' and '-'.",
            "The name becomes a folder and a Slurm job name.",
            Fix(changes={"experiment": clean}),
        )
    if resolved.job.launch.executor == "local" and resolved.job.launch.num_nodes > 1:
        yield _error(
            "local-nodes",
            f"--num-nodes {resolved.job.launch.num_nodes} with --executor local starts one node only.",
            "Several nodes need Slurm.",
            Fix(changes={"num_nodes": 1}),
            Fix(changes={"executor": "slurm"}),
        )


def _layout(resolved: Resolved) -> Iterator[Finding]:
    p = resolved.job.parallelism
    unit = p.tensor_model_parallel_size * p.pipeline_model_parallel_size * p.context_parallel_size
    if unit < 1 or resolved.world_size % unit or resolved.world_size < unit:
        gpus = max(1, unit)
        yield _error(
            "world-by-layout",
            f"{resolved.world_size} processes do not divide into TP·PP·CP = {unit}.",
            "Nodes times processes per node must be a multiple of TP·PP·CP.",
            Fix(changes={"num_gpus": gpus, "num_nodes": 1}),
        )


def _batch(resolved: Resolved) -> Iterator[Finding]:
    batch, dp = resolved.job.batch, max(1, resolved.data_parallel_size)
    unit = batch.micro_batch_size * dp
    if unit < 1 or batch.global_batch_size % unit or batch.global_batch_size < 1:
        unit = max(1, unit)
        lower = batch.global_batch_size // unit * unit
        fixes = [Fix(changes={"global_batch_size": value}) for value in (lower, lower + unit) if value > 0]
        yield _error(
            "batch-by-data-parallel",
            f"--global-batch-size {batch.global_batch_size} is not a multiple of {batch.micro_batch_size}·{dp}.",
            "The global batch is a multiple of micro batch size times data parallel size.",
            *fixes,
        )


def _data(resolved: Resolved) -> Iterator[Finding]:
    for file in resolved.facts.data:
        if file.error:
            yield _error("data-unreadable", f"{file.error}.", "Each prefix names a .bin and its .idx.")
    if not resolved.facts.data:
        yield _error("data-missing", "--dataset-dir is not given.", "A job needs tokenised data.")
    elif not any(f.error for f in resolved.facts.data) and (resolved.job.batch.max_steps or 0) < 1:
        yield _error(
            "data-too-small",
            f"the training share holds {resolved.epoch_samples} samples of {resolved.job.data.seq_length} tokens, "
            f"less than one step of {resolved.job.batch.global_batch_size}.",
            "One epoch must give at least one step.",
            Fix(changes={"global_batch_size": max(1, resolved.epoch_samples)}),
            Fix(changes={"max_steps": 1}),
        )
    if resolved.facts.tokenizer is None:
        yield _error("tokenizer-missing", "--hf-model-id is not given, and none is recorded beside the data.")
    elif resolved.facts.tokenizer.error:
        yield _error("tokenizer-unusable", f"--hf-model-id: {resolved.facts.tokenizer.error}.")
