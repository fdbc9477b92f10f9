"""Values that are out of range whatever the other settings are."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, shown
from nemolaunch.findings import Finding
from nemolaunch.job import Job, spec_of
from nemolaunch.resolve import MOST_PER_WEIGHT, MOST_TOKENS, Resolved

# Megatron's index files count steps and samples in 32 bits; the other limits are sizes of machines.
MOST = 2**31 - 1
MOST_PROCESSES = 2**20

INTEGERS: dict[str, tuple[int, int]] = {
    "num_nodes": (1, 2**16),
    "num_gpus": (1, 2**10),
    "seq_length": (1, MOST),
    "max_steps": (1, MOST),
    "global_batch_size": (1, MOST),
    "micro_batch_size": (1, MOST),
    "max_tokens": (1, MOST_TOKENS),
    "global_batch_tokens": (1, MOST_TOKENS),
    "num_workers": (0, 1024),
    "shuffle_buffer": (1, MOST),
    "stream_readers": (1, MOST_PROCESSES),
    "seed": (1, MOST),
    "tensor_model_parallel_size": (1, MOST_PROCESSES),
    "pipeline_model_parallel_size": (1, MOST_PROCESSES),
    "virtual_pipeline_model_parallel_size": (1, MOST_PROCESSES),
    "context_parallel_size": (1, MOST_PROCESSES),
    "expert_model_parallel_size": (1, MOST_PROCESSES),
    "expert_tensor_parallel_size": (1, MOST_PROCESSES),
    "num_distributed_optimizer_instances": (1, MOST_PROCESSES),
    "recompute_num_layers": (1, MOST),
    "cpu_offloading_layers": (0, MOST),
    "warmup_steps": (0, MOST),
    "constant_steps": (0, MOST),
    "decay_steps": (1, MOST),
    "wsd_decay_steps": (1, MOST),
    "log_every": (1, MOST),
    "val_check_interval": (1, MOST),
    "limit_val_batches": (0, MOST),
    "checkpoint_every": (1, MOST),
    "sample_every": (1, MOST),
    "eval_every": (1, MOST),
    "keep_latest": (-1, MOST),
}
DIVISORS = (
    "num_nodes",
    "num_gpus",
    "seq_length",
    "global_batch_size",
    "micro_batch_size",
    "num_distributed_optimizer_instances",
    *(name for name in INTEGERS if name.endswith("_parallel_size")),
)
# (minimum, maximum, whether the minimum itself is excluded)
REALS: dict[str, tuple[float, float, bool]] = {
    "tokens_per_param": (0.0, MOST_PER_WEIGHT, True),
    "mlm_probability": (0.0, 1.0, True),
    "mlm_span_length": (1.0, 1e3, False),
    "moe_z_loss_coeff": (0.0, 1e3, True),
    "adam_eps": (0.0, 1.0, True),
    "lr": (0.0, 1e3, True),
    "min_lr": (0.0, 1e3, False),
    "warmup_ratio": (0.0, 1.0, False),
    "adam_beta1": (0.0, 1.0, False),
    "adam_beta2": (0.0, 1.0, False),
    "weight_decay": (0.0, 1e3, False),
    "clip_grad": (0.0, 1e9, False),
    "preflight_tolerance": (0.0, 1.0, True),
    "keep_warm": (0.0, 1440.0, True),
}
BELOW_ONE = ("adam_beta1", "adam_beta2", "mlm_probability", "preflight_tolerance")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that all numbers are within their range."""
    job = resolved.job
    for name, (least, most) in INTEGERS.items():
        value = job.get(name)
        computed = name in resolved.computed  # the data rules report values that could not be computed
        if value is not None and not least <= value <= most and not computed:
            nearest = least if value < least else most
            # a length below 1 usually means "not given": one epoch
            fixes = [fix(max_steps=None)] if name == "max_steps" and value < least else []
            yield error(
                "out-of-range",
                f"{shown(name, value)} is out of range: it must be between {least:,} and {most:,}",
                *fixes,
                *each(name, [nearest]),
                about=name,
            )
    if job.checkpoint.keep_latest == 0:
        yield error(
            "out-of-range",
            f"{shown('keep_latest', 0)} would keep no checkpoints",
            *each("keep_latest", [1, -1]),
            about="keep_latest",
        )
    yield from _reals(job)


def _reals(job: Job) -> Iterator[Finding]:
    for name, (least, most, excluded) in REALS.items():
        value = job.get(name)
        if value is None:
            continue
        too_low = value < least or (excluded and value == least)
        too_high = value > most or (name in BELOW_ONE and value == most)
        if not math.isfinite(value) or too_low or too_high:
            lower = "above" if excluded else "at least"
            upper = "below" if name in BELOW_ONE else "at most"
            yield error(
                "out-of-range",
                f"{shown(name, value)} is out of range: it must be {lower} {least:g} and {upper} {most:g}",
                *each(name, [spec_of(name).default]),
                about=name,
            )


def sizes_are_valid(resolved: Resolved) -> bool:
    """Return whether the counts that other rules calculate with are within their range."""
    return all(
        (value := resolved.job.get(name)) is None or INTEGERS[name][0] <= value <= INTEGERS[name][1]
        for name in DIVISORS
        if name not in resolved.computed
    )
