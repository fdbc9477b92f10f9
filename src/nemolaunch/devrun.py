"""`--dev-run`: the same job, shrunk until it takes minutes on the machine at hand.

Everything that gives a job its character stays: recipe, data, tokenizer, parallelism, recompute, optimizer,
logging. Depth, width, sequence length, batch and steps shrink; parallelism only where there are too few GPUs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from nemolaunch.catalogue import Model
from nemolaunch.facts import Facts
from nemolaunch.job import Job

STEPS = 20
SEQ_LENGTH = 256
HIDDEN_SIZE = 256
MOST_CPU_PROCESSES = 8
SIZES = (
    "context_parallel_size",
    "pipeline_model_parallel_size",
    "expert_model_parallel_size",
    "tensor_model_parallel_size",
)


def renamed(job: Job) -> Job:
    """The job under a name of its own, so that it never resumes from, or into, the real run."""
    if job.launch.output_dir:
        return job.with_values(output_dir=job.launch.output_dir.rstrip("/") + "-dev")
    return job.with_values(experiment=job.launch.experiment + "-dev")


def shrunk(job: Job, model: Model, facts: Facts) -> tuple[Job, Model]:
    """The job and the model made small."""
    job = _fitted(job.with_values(executor="local", num_nodes=1), facts)
    p = job.parallelism
    tp, cp = p.tensor_model_parallel_size, p.context_parallel_size
    model = _small(model, tp, p.pipeline_model_parallel_size, p.virtual_pipeline_model_parallel_size or 1)
    unit = math.lcm(2 * cp, tp * cp)
    seq_length = min(job.data.seq_length or SEQ_LENGTH, SEQ_LENGTH)
    layout = tp * p.pipeline_model_parallel_size * cp
    processes = job.launch.num_gpus or len(facts.host.gpus) or layout
    data_parallel = max(1, processes // layout)
    microbatches = 2 * p.pipeline_model_parallel_size
    return (
        job.with_values(
            seq_length=max(unit, seq_length // unit * unit),
            max_steps=min(job.batch.max_steps or STEPS, STEPS),
            micro_batch_size=1,
            global_batch_size=data_parallel * microbatches,
            warmup_steps=min(job.optimizer.warmup_steps, 2),
            log_every=1,
            limit_val_batches=min(job.logging.limit_val_batches, 2),
            checkpoint_every=None,
            keep=1,
            recompute_num_layers=None if job.memory.recompute_num_layers is None else 1,
            cpu_offloading_layers=None if job.memory.cpu_offloading_layers is None else 1,
        ),
        model,
    )


def _fitted(job: Job, facts: Facts) -> Job:
    """Halve parallel sizes, the costliest to start first, until the processes fit the machine."""
    most = len(facts.host.gpus) or MOST_CPU_PROCESSES
    values: dict[str, Any] = {name: max(1, job.get(name)) for name in SIZES}

    def needed() -> int:
        layout = values["tensor_model_parallel_size"] * values["pipeline_model_parallel_size"]
        experts = layout * values["expert_model_parallel_size"]
        return math.lcm(layout * values["context_parallel_size"], experts)

    while needed() > most:
        name = max(SIZES, key=lambda n: (values[n], -SIZES.index(n)))
        values[name] = max(1, values[name] // 2)
    if values["pipeline_model_parallel_size"] == 1:
        values["virtual_pipeline_model_parallel_size"] = None
    if values["tensor_model_parallel_size"] == 1:
        values["sequence_parallel"] = False
    if job.launch.num_gpus is not None:
        values["num_gpus"] = max(needed(), min(job.launch.num_gpus, most) // needed() * needed())
    elif facts.host.gpus:
        values["num_gpus"] = most // needed() * needed()
    return job.with_values(**values)


def _small(model: Model, tp: int, pp: int, vpp: int) -> Model:
    """The model with few narrow layers; heads, groups and experts keep their ratios as far as they can."""
    a = model.architecture
    groups = max(tp, min(a.num_query_groups, 2))
    groups = math.lcm(groups, tp)
    heads = groups * max(1, min(a.num_attention_heads // max(1, a.num_query_groups), 2))
    hidden = min(a.hidden_size, HIDDEN_SIZE)
    hidden = max(heads, hidden // (heads * 8) * heads * 8)
    changes: dict[str, Any] = {
        "num_layers": pp * vpp * (2 if pp * vpp == 1 else 1),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_query_groups": groups,
        "kv_channels": a.kv_channels if a.kv_channels * heads <= 2 * hidden else hidden // heads,
        "ffn_hidden_size": min(a.ffn_hidden_size, 2 * hidden),
    }
    if a.moe_ffn_hidden_size:
        changes["moe_ffn_hidden_size"] = min(a.moe_ffn_hidden_size, hidden)
    if isinstance(a.moe_layer_freq, tuple):
        changes["moe_layer_freq"] = a.moe_layer_freq[-changes["num_layers"] :]
    return dataclasses.replace(
        model,
        architecture=dataclasses.replace(a, **changes),
        overrides={**model.overrides, **changes},
    )
