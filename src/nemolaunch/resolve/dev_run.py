"""`--dev-run`: the same job, shrunk until it takes minutes on this machine.

What characterises a job stays: recipe, data, tokenizer, parallelism, recompute, optimizer, logging. Depth, width,
experts, sequence length, batch and steps shrink; parallelism only shrinks if there are too few GPUs, or too little
memory for CPU processes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nemolaunch.catalogue import Architecture, ModelSpec
from nemolaunch.facts import Facts, Host
from nemolaunch.findings import Finding, Severity
from nemolaunch.job import Job

STEPS = 20
SEQ_LENGTH = 256
SHUFFLE_BUFFER = 1000
HIDDEN_SIZE = 256
UNIT = 32  # fp8 needs matrix dimensions that are multiples of it
MOST_CPU_PROCESSES = 8
BYTES_PER_PROCESS = 3 * 2**29  # NeMo's libraries and a small model
SIZES = (
    "context_parallel_size",
    "pipeline_model_parallel_size",
    "expert_model_parallel_size",
    "tensor_model_parallel_size",
)
# Errors of the full job that do not concern its dev run: another machine, more data, another folder
IRRELEVANT = (
    "data-",
    "slurm-",
    "run-",
    "cpu-",
    "local-nodes",
    "more-processes-than-gpus",
    "index-cache",
    "stream-length",
    "stream-readers",
    "stream-changed",
    "host-memory",
    "disk",
)


@dataclass(frozen=True, kw_only=True)
class Small:
    """A shrunk job.

    Attributes:
        job: the small job.
        model: the small model.
        facts: the facts without what the small job does not read.
        left_out: descriptions of what it omits.
    """

    job: Job
    model: ModelSpec
    facts: Facts
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Parallel sizes, and the processes they need."""

    tp: int
    pp: int
    vpp: int
    cp: int
    ep: int
    etp: int

    @property
    def replica(self) -> int:
        return self.tp * self.pp * self.cp

    @property
    def needed(self) -> int:
        return math.lcm(self.replica, self.etp * self.ep * self.pp)


def renamed(job: Job) -> Job:
    """Return the job under a different name, so that it never resumes from, or into, the real run."""
    if job.launch.output_dir:
        return job.with_values(output_dir=job.launch.output_dir.rstrip("/") + "-dev")
    return job.with_values(experiment=job.launch.experiment + "-dev")


def origins(given: Mapping[str, str], asked: Job, small: Job) -> dict[str, str]:
    """Return the origins of values; those that were shrunk come from the dev run."""
    before, after = asked.values(), small.values()
    return {**given, **{name: "the dev run" for name in after if after[name] != before[name]}}


def findings(real: Iterable[Finding], small: Iterable[Finding]) -> list[Finding]:
    """Return the errors of the real job, then the findings that only concern its dev run.

    Small sizes may divide where the real ones do not, so a check of the dev run alone would promise too much.
    """
    kept = [f for f in real if f.severity is Severity.ERROR and not f.code.startswith(IRRELEVANT)]
    reported = {finding.code for finding in kept}
    return [*kept, *(finding for finding in small if finding.code not in reported)]


def shrunk(job: Job, model: ModelSpec, facts: Facts) -> Small:
    """Shrink the job and its model. The dev run starts from scratch even if there is an earlier one."""
    executor = job.launch.executor if job.launch.is_here else "local"
    job = _fitted(job.with_values(executor=executor, num_nodes=1), facts.host)
    layout = _layout(job)
    unit = math.lcm(2 * layout.cp, layout.tp * layout.cp)
    length = max(unit, min(job.data.seq_length or SEQ_LENGTH, SEQ_LENGTH) // unit * unit)
    processes = job.launch.num_gpus or len(facts.host.gpus) or layout.needed
    micro_batch = max(1, min(job.batch.micro_batch_size, 2))
    left_out = []
    if job.model.nemo_model or job.checkpoint.resume not in ("auto", "never"):
        left_out.append("the weights to start from: they have the model's real size")
    steps = max(1, min(job.batch.max_steps or STEPS, STEPS))
    watched = {name: steps for name in ("sample_every", "eval_every") if job.get(name) is not None}
    small = job.with_values(
        nemo_model=None,
        resume="never",
        seq_length=length,
        max_steps=steps,
        max_tokens=None,
        tokens_per_param=None,
        global_batch_tokens=None,
        rampup_batch_size=None,
        micro_batch_size=micro_batch,
        global_batch_size=max(1, processes // layout.replica) * micro_batch * 2 * layout.pp,
        warmup_steps=None
        if job.optimizer.warmup_steps is None
        else max(0, min(job.optimizer.warmup_steps, 2)),
        decay_steps=None,
        constant_steps=None,
        wsd_decay_steps=None,
        log_every=1,
        limit_val_batches=min(job.logging.limit_val_batches, 2),
        checkpoint_every=steps if watched else None,
        **watched,
        upload=None,
        keep_latest=1,
        recompute_num_layers=None if job.memory.recompute_num_layers is None else 1,
        cpu_offloading_layers=None if job.memory.cpu_offloading_layers is None else 1,
        stream_readers=None,
        shuffle_buffer=max(1, min(job.stream.shuffle_buffer, SHUFFLE_BUFFER))
        if job.data.data_mode == "stream"
        else job.stream.shuffle_buffer,
    )
    return Small(
        job=small,
        model=_small(model, layout, length),
        facts=dataclasses.replace(facts, weights=None, resume=None),
        left_out=tuple(left_out),
    )


def _layout(job: Job) -> _Layout:
    p = job.parallelism
    tp = max(1, p.tensor_model_parallel_size)
    return _Layout(
        tp=tp,
        pp=max(1, p.pipeline_model_parallel_size),
        vpp=max(1, p.virtual_pipeline_model_parallel_size or 1),
        cp=max(1, p.context_parallel_size),
        ep=max(1, p.expert_model_parallel_size),
        etp=max(1, p.expert_tensor_parallel_size or tp),
    )


def _fitted(job: Job, host: Host) -> Job:
    """Halve parallel sizes, the largest first, until the processes fit on the machine."""
    most = len(host.gpus) or max(1, min(MOST_CPU_PROCESSES, host.memory_bytes // BYTES_PER_PROCESS))
    job = job.with_values(**{name: max(1, job.get(name)) for name in SIZES})
    while _layout(job).needed > most:
        name = max(SIZES, key=lambda n: (job.get(n), -SIZES.index(n)))
        if job.get(name) == 1:
            break
        job = job.with_values(**{name: job.get(name) // 2})
        tp, etp = job.parallelism.tensor_model_parallel_size, job.parallelism.expert_tensor_parallel_size
        if etp is not None:
            job = job.with_values(expert_tensor_parallel_size=min(etp, tp))
    values: dict[str, Any] = {}
    if job.parallelism.pipeline_model_parallel_size == 1:
        values["virtual_pipeline_model_parallel_size"] = None
    if job.parallelism.tensor_model_parallel_size == 1:
        values["sequence_parallel"] = False
    needed = _layout(job).needed
    if job.launch.num_gpus is not None:
        values["num_gpus"] = max(needed, min(job.launch.num_gpus, most) // needed * needed)
    elif host.gpus:
        values["num_gpus"] = max(1, most // needed) * needed
    return job.with_values(**values)


def _small(model: ModelSpec, layout: _Layout, seq_length: int) -> ModelSpec:
    """Return the model with few layers, and with narrow ones if its widths can be chosen freely."""
    a = model.architecture
    changes = _depth(a, layout)
    if a.kind in ("gpt", "mamba"):
        changes |= _widths(a, layout) | _experts(a, layout) | _windows(a, seq_length)
    if a.kind == "mamba":
        changes |= _states(a, layout)
    overrides = {name: value for name, value in changes.items() if not name.startswith("num_layers_in_")}
    return dataclasses.replace(
        model,
        architecture=dataclasses.replace(a, **changes),
        overrides={**model.overrides, **overrides},
    )


def _depth(a: Architecture, layout: _Layout) -> dict[str, Any]:
    """Choose one layer per (virtual) stage, or two for a single stage; split like the model's own, or evenly."""
    chunks = layout.pp * layout.vpp
    layers = max(2, chunks)
    ends = a.account_for_embedding_in_pipeline_split + a.account_for_loss_in_pipeline_split
    if ends and layout.pp > 1:
        layers = 2 * chunks - ends
    changes: dict[str, Any] = {
        "num_layers_in_first_pipeline_stage": None,
        "num_layers_in_last_pipeline_stage": None,
    }
    if a.hybrid_override_pattern:  # one layer of each kind
        kinds = "".join(dict.fromkeys(a.hybrid_override_pattern))
        layers = -(-max(layers, len(kinds)) // chunks) * chunks
        changes["hybrid_override_pattern"] = (kinds * layers)[:layers]
    if a.linear_attention_freq:  # both kinds of layers
        layers = -(-max(layers, a.linear_attention_freq) // chunks) * chunks
    if a.global_kv_channels and a.interleaved_attn_pattern:  # both kinds, also of those that share keys
        period = sum(a.interleaved_attn_pattern) * (2 if a.num_kv_shared_layers else 1)
        layers = -(-max(layers, period) // chunks) * chunks
        changes["num_kv_shared_layers"] = layers // 2 if a.num_kv_shared_layers else None
    if isinstance(a.moe_layer_freq, tuple):  # the first may be dense, later ones have experts
        changes["moe_layer_freq"] = a.moe_layer_freq[:1] + a.moe_layer_freq[1 - layers :]
    if a.encoder_num_layers:
        changes["encoder_num_layers"] = layers
    return {**changes, "num_layers": layers}


def _widths(a: Architecture, layout: _Layout) -> dict[str, Any]:
    """Choose small widths that keep the kind of attention: grouped, multi-query or plain."""
    hidden = min(a.hidden_size, HIDDEN_SIZE)
    groups = max(layout.tp, min(a.num_query_groups, 2))
    heads = groups * max(1, min(a.num_attention_heads // max(1, a.num_query_groups), 2))
    kv_channels = a.kv_channels
    if kv_channels * heads > 2 * hidden:
        kv_channels = max(UNIT, _down(hidden // heads, UNIT))
    changes: dict[str, Any] = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_query_groups": groups,
        "kv_channels": kv_channels,
        "ffn_hidden_size": _at_most(a.ffn_hidden_size, 2 * hidden, layout.tp),
    }
    if a.global_kv_channels:
        changes |= {"global_kv_channels": 2 * kv_channels}
        changes |= {"num_global_query_groups": groups if a.num_global_query_groups else None}
    if a.per_layer_embed_dim:
        changes["per_layer_embed_dim"] = min(a.per_layer_embed_dim, UNIT)
    # the tokenizer's vocabulary instead of a preset one
    if a.vocab_size is not None and not a.has_preset_vocabulary:
        changes["vocab_size"] = None
    if a.linear_attention_freq:
        heads = 2 * layout.tp * layout.cp
        changes |= {"linear_num_key_heads": heads, "linear_num_value_heads": 2 * heads}
        changes |= {"linear_key_head_dim": UNIT, "linear_value_head_dim": UNIT}
    if a.make_vocab_size_divisible_by > 128:
        changes["make_vocab_size_divisible_by"] = 128
    return changes


def _experts(a: Architecture, layout: _Layout) -> dict[str, Any]:
    if not a.num_moe_experts:
        return {}
    enough = max(4, 2 * a.moe_router_topk)
    changes: dict[str, Any] = {
        "num_moe_experts": min(a.num_moe_experts, -(-enough // layout.ep) * layout.ep),
    }
    if a.moe_ffn_hidden_size:
        changes["moe_ffn_hidden_size"] = _at_most(a.moe_ffn_hidden_size, HIDDEN_SIZE, layout.etp)
    if a.moe_shared_expert_intermediate_size:
        width = _at_most(a.moe_shared_expert_intermediate_size, HIDDEN_SIZE, layout.tp)
        changes["moe_shared_expert_intermediate_size"] = width
    if a.moe_latent_size:
        changes["moe_latent_size"] = min(a.moe_latent_size, HIDDEN_SIZE // 2)
    return changes


def _states(a: Architecture, layout: _Layout) -> dict[str, Any]:
    """Choose few heads and groups of Mamba layers; without a number of its own, there are two channels per width."""
    groups = a.mamba_num_groups if a.mamba_num_groups <= layout.tp else max(layout.tp, 2)
    changes = {"mamba_num_groups": groups}
    if a.mamba_num_heads:
        changes["mamba_num_heads"] = 2 * groups * layout.cp
    return changes


def _windows(a: Architecture, seq_length: int) -> dict[str, Any]:
    """Choose a sliding window that is shorter than the sequence."""
    if a.window_size is None:
        return {}
    most = max(1, seq_length // 4)
    if isinstance(a.window_size, int):
        return {"window_size": min(a.window_size, most)}
    return {"window_size": tuple(min(width, most) for width in a.window_size)}


def _at_most(width: int, most: int, shares: int) -> int:
    """Return a width that splits into `shares` multiples of `UNIT`; a small width stays unchanged."""
    return width if width <= most else max(UNIT * shares, _down(most, UNIT * shares))


def _down(value: int, unit: int) -> int:
    return value // unit * unit
