"""Flags that describe a layout without a whole job: for `estimate-mem`, `count-params`, `suggest`."""

from __future__ import annotations

import argparse
from typing import Any

from nemolaunch import catalogue
from nemolaunch.cli.parsing.flags import add_some_job_flags, require_model
from nemolaunch.errors import UsageError
from nemolaunch.job import Job
from nemolaunch.resolve.model import model_of
from nemolaunch.tokenizer.inspection import Tokenizer, look_at_tokenizer
from nemolaunch.tokenizer.library import needs_code

LAYOUT_FIELDS = (
    "model_name", "hf_model_id", "trust_remote_code", "num_nodes", "num_gpus", "gpu",
    "seq_length", "global_batch_size", "micro_batch_size", "precision", "fp8", "fp8_recipe",
    "tensor_model_parallel_size", "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size",
    "context_parallel_size", "sequence_parallel", "expert_model_parallel_size", "expert_tensor_parallel_size",
    "recompute_granularity", "recompute_method", "recompute_num_layers", "recompute_modules",
    "cpu_offloading", "cpu_offloading_layers", "cpu_offloading_activations", "cpu_offloading_weights",
    "optim_cpu_offloading", "optim_cpu_offloading_frac", "optimizer", "disable_dist_optim",
    "num_distributed_optimizer_instances", "attention_backend", "cuda_graphs",
)  # fmt: skip


def add_model_flags(parser: argparse.ArgumentParser, fields: tuple[str, ...]) -> None:
    """Add some of a job's flags, and the vocabulary size for when no tokenizer is available."""
    add_some_job_flags(parser, fields)
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="vocabulary size (default: that of --hf-model-id, else as published)",
    )


def model_and_vocabulary(given: dict[str, Any]) -> tuple[Job, catalogue.ModelSpec, int | None]:
    """Return the job of some flags, its model, and the vocabulary size if known.

    Raises:
        UsageError: no model is named, or the tokenizer cannot be used.
    """
    _refuse_absurd(given)
    vocab_size = given.pop("vocab_size", None)
    job = Job().with_values(**given)
    require_model(job.model.model_name)
    source, trusted = job.model.hf_model_id, job.model.trust_remote_code
    seen = look_at_tokenizer(source, trust_remote_code=trusted) if source else None
    if vocab_size is None and seen:
        vocab_size = _usable(seen).vocab_size
    return job, model_of(job, seen), vocab_size


def _refuse_absurd(given: dict[str, Any]) -> None:
    """Refuse counts that no machine or model can have: ranks beyond 2**20, others beyond 2**31."""
    wrong = []
    for name, value in given.items():
        most = 2**20 if name.endswith("_parallel_size") or name.startswith("num_") else 2**31
        if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= most:
            wrong.append(f"--{name.replace('_', '-')} {value} is not within 1 to {most}")
    if wrong:
        raise UsageError("; ".join(wrong))


def _usable(tokenizer: Tokenizer) -> Tokenizer:
    if tokenizer.error:
        raise UsageError(f"--hf-model-id: {tokenizer.error}")
    if tokenizer.code and tokenizer.vocab_size is None:
        raise UsageError(
            f"--hf-model-id {tokenizer.source} {needs_code(tokenizer.code)}, or use --vocab-size"
        )
    if tokenizer.vocab_size is None:
        raise UsageError(
            f"--hf-model-id {tokenizer.source}: its vocabulary cannot be read here; use --vocab-size instead"
        )
    return tokenizer
