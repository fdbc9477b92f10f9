"""Resolution of a job's open values, with the origin of each value.

Never raises for values that contradict each other: the checks report those, all at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemolaunch import arithmetic
from nemolaunch.arithmetic.ramp import BatchSizes
from nemolaunch.catalogue import Gpu, ModelSpec, gpu, gpu_seen
from nemolaunch.data import index_cache
from nemolaunch.data.blend import Share
from nemolaunch.data.stream_budget import Outlook, default_readers, outlook, tokens_to_end
from nemolaunch.data.stream_spec import StreamSpec, with_text_key
from nemolaunch.data.validation_sets import ValidationSet
from nemolaunch.errors import UsageError
from nemolaunch.facts import Facts
from nemolaunch.facts.gres import gpu_types, parse_gres
from nemolaunch.facts.slurm_time import slurm_time
from nemolaunch.job import Batch, Job
from nemolaunch.resolve import learning, mixture, validation
from nemolaunch.resolve.backend import BRIDGE, backend_of
from nemolaunch.resolve.cluster import full_node, partitions_of, time_limit
from nemolaunch.resolve.filling import Filling, parameters_of
from nemolaunch.resolve.recompute import NEED_TRANSFORMER_ENGINE
from nemolaunch.resolve.resuming import Earlier, Resumption, batch_sizes, earlier, resumption
from nemolaunch.resolve.settings import as_set
from nemolaunch.tokenizer.vocabulary import MASK

DEFAULT_TIME_S = 86400
FULL_NODE_GPUS = 8
STREAM_WORKERS = 2
DEFAULT_GPU = "h100"
MOST_TOKENS = 10**18
MOST_PER_WEIGHT = 1e9


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A job with every value resolved.

    Attributes:
        asked: the job as it was given.
        job: the job with all values filled in, without anything the device does not support.
        model: recipe, architecture and overrides.
        facts: what was found on this machine.
        device: `gpu`, or `cpu` for a rehearsal.
        gpu: the GPU the job runs on or, if that is unknown (`gpu_is_known`), the one it is estimated for.
        gpu_origin: why this GPU.
        gpu_is_known: whether the job is known to run on this GPU.
        world_size: processes on all nodes.
        data_parallel_size: number of model replicas; 0 if the world size does not divide.
        blend: (weight or None, prefix) of each data file, as passed to Megatron.
        ledger: what is read of each source, if there are several.
        stream, outlook: the sources of a stream of rows, and what is read of each, if known.
        validation_sets: named data that each validation evaluates.
        batch_sizes: the batch size of each step.
        epoch_samples: sequences in one epoch of the training split.
        index_folder: folder of Megatron's index for exactly these data, or None for a stream.
        origins: flag name → where the value came from if it was not given.
        left_out: what this device cannot rehearse.
        earlier: the training that the job continues, if any.
        resumes: where and how it does.
        computed: names of the fields that were filled in or changed.
        converted: given fields that others express in another unit: field name → value as given.
    """

    asked: Job
    job: Job
    model: ModelSpec
    facts: Facts
    device: str
    gpu: Gpu
    gpu_origin: str
    gpu_is_known: bool
    world_size: int
    data_parallel_size: int
    blend: tuple[tuple[float | None, str], ...]
    batch_sizes: BatchSizes
    epoch_samples: int
    origins: dict[str, str]
    index_folder: str | None = None
    ledger: tuple[Share, ...] = ()
    stream: StreamSpec | None = None
    outlook: tuple[Outlook, ...] = ()
    validation_sets: tuple[ValidationSet, ...] = ()
    left_out: tuple[str, ...] = ()
    earlier: Earlier | None = None
    resumes: Resumption | None = None
    computed: frozenset[str] = frozenset()
    converted: Mapping[str, Any] = field(default_factory=dict)


def changed(resolved: Resolved, changes: Mapping[str, Any]) -> Resolved:
    """Resolve the job again with some fields changed, based on the same facts."""
    return resolve(resolved.asked.with_values(**changes), resolved.model, resolved.facts)


def resolve(job: Job, model: ModelSpec, facts: Facts, given: Mapping[str, str] | None = None) -> Resolved:
    """Fill in every open value of a job from the model, the data and the machine.

    Args:
        job: the job as given.
        model: its model.
        facts: what was found on this machine.
        given: origins of values that were given: field name → origin.

    Raises:
        UsageError: `--gpu` names a GPU that is not in the catalogue.
    """
    backend, why = backend_of(job, facts)
    model = as_set(model, job, bridge=backend == BRIDGE)
    filling = Filling(job, given or {})
    if backend == BRIDGE and job.launch.backend != BRIDGE:
        filling.set("backend", backend, why)
    device = _device(job, facts)
    left_out = _leave_out(filling) if device == "cpu" else ()
    _processes(filling, facts)
    if job.launch.executor == "slurm":
        _time_limit(filling, facts)
    _paths(filling, facts)
    filling.default("seq_length", lambda: model.architecture.seq_length, f"the model {model.name}")
    if job.model.hf_model_id is None and facts.tokenizer is not None:
        filling.set("hf_model_id", facts.tokenizer.source, "recorded beside the data")
    _objective(filling, model, facts)
    world_size = filling.job.launch.num_nodes * (filling.job.launch.num_gpus or 0)
    _batch_of_tokens(filling, world_size)
    before = earlier(filling.job, facts)
    batches = batch_sizes(filling.job, before)
    split, reason = validation.split_of(job, facts)
    if split != job.data.split:
        filling.set("split", split, reason)
    epoch = sum(f.samples(0, filling.job.data.seq_length or 1) for f in facts.data)
    _steps_of_tokens(filling, model, facts, batches)
    stream = _stream(filling, facts, world_size, batches) if facts.stream else None
    _steps(filling, epoch, batches)
    learning.fill(filling, model, facts, before)
    validation.fill(filling, facts, model, epoch)
    if facts.asked.unit:
        filling.default("blend_by", lambda: facts.asked.unit, "the blend's file")
    row, gpu_origin, gpu_is_known = _gpu(job, facts)
    return Resolved(
        asked=job,
        job=filling.job,
        model=model,
        facts=facts,
        device=device,
        gpu=row,
        gpu_origin=gpu_origin,
        gpu_is_known=gpu_is_known,
        world_size=world_size,
        data_parallel_size=_data_parallel(world_size, filling.job),
        blend=mixture.weighted(filling.job, facts, epoch, batches),
        ledger=mixture.ledger(filling.job, facts, batches),
        stream=stream,
        outlook=_outlook(filling.job, stream, batches) if stream else (),
        validation_sets=validation.validation_sets(filling.job, facts, model),
        batch_sizes=batches,
        epoch_samples=epoch,
        index_folder=_index_folder(filling.job, facts),
        origins=filling.origins,
        earlier=before,
        resumes=resumption(filling.job, before),
        computed=frozenset(filling.computed),
        converted=filling.converted,
        left_out=left_out,
    )


def _device(job: Job, facts: Facts) -> str:
    if job.launch.device != "auto":
        return job.launch.device
    return "gpu" if job.launch.executor == "slurm" or facts.host.gpus else "cpu"


def _gpu(job: Job, facts: Facts) -> tuple[Gpu, str, bool]:
    """Return the GPU, why this one, and whether it is known: from `--gpu`, the cluster, or this machine."""
    if job.launch.gpu:
        return gpu(job.launch.gpu), "given", True
    names, where = tuple(dict.fromkeys(facts.host.gpus)), "visible here"
    if job.launch.executor == "slurm":
        names, where = _cluster_gpus(job, facts), f"of partition {job.launch.partition}"
    rows = [gpu_seen(name) for name in names]
    if len(rows) == 1 and rows[0] is not None:
        return rows[0], where, True
    unsure = ""
    if names:
        unsure = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {where}; "
    return gpu(DEFAULT_GPU), f"{unsure}assumed; --gpu NAME selects another", False


def _cluster_gpus(job: Job, facts: Facts) -> tuple[str, ...]:
    """Return the cluster's names of the GPUs that the job requests."""
    asked = gpu_types(parse_gres(job.launch.gres or "") or ())
    kinds = [kind for partition in partitions_of(job.launch, facts) for kind in partition.kinds]
    fitting = [kind for kind in kinds if kind.gpus() >= (job.launch.num_gpus or 1)]
    return asked or gpu_types(tuple(gres for kind in fitting for gres in kind.gres))


def _paths(filling: Filling, facts: Facts) -> None:
    """Make paths absolute, because a Slurm job starts in a different folder; their origins do not change."""
    found = {
        "index_mapping_dir": facts.index_dir,
        "nemo_model": facts.weights.path if facts.weights else None,
        "resume": facts.resume.path if facts.resume else None,
        "setup": facts.setup.path if facts.setup else None,
    }
    filling.job = filling.job.with_values(**{name: path for name, path in found.items() if path})


def _index_folder(job: Job, facts: Facts) -> str | None:
    """Return the folder of Megatron's index, which has the identity of the data and how they are divided in its name.

    It is not a value of the job: a job repeated from its plan, with other data, must get another folder.
    """
    if facts.index_cache_dir is None:
        return None
    name = index_cache.identity(
        (file.digest or "" for file in facts.data_files),
        split=job.data.split or "",
        seed=job.batch.seed,
        seq_length=job.data.seq_length or 0,
    )
    return os.path.join(facts.index_cache_dir, name)


def _objective(filling: Filling, model: ModelSpec, facts: Facts) -> None:
    """Set the objective to mlm for BERT, and the mask token to the tokenizer's unless one is given."""
    if model.architecture.kind == "bert" and "objective" not in filling.origins:
        filling.set("objective", "mlm", f"the model {model.name}")
    own = facts.tokenizer.roles.get(MASK) if facts.tokenizer else None
    if filling.job.objective.objective == "mlm" and own is not None:
        filling.default("mask_token", lambda: own, "the tokenizer")


def _time_limit(filling: Filling, facts: Facts) -> None:
    """Set the shortest limit that applies, or one day if there is none: the run continues in the next job."""
    if filling.job.launch.time is None and (limit := time_limit(filling.job.launch, facts)):
        filling.set("time", slurm_time(limit[0]), f"the limit of {limit[1]}")
    filling.default("time", lambda: slurm_time(DEFAULT_TIME_S), "the default")


def _leave_out(filling: Filling) -> tuple[str, ...]:
    """Turn off what a CPU does not support, and return descriptions of it."""
    job = filling.job
    left = ["GPU kernels (Transformer Engine, NCCL): replaced by plain PyTorch and gloo"]
    if job.batch.fp8:
        filling.set("fp8", False, "not supported on the CPU")
        filling.set("fp8_recipe", Batch().fp8_recipe, "not supported on the CPU")
        left.append("fp8: the rehearsal trains in bf16")
    if job.memory.cpu_offloading:
        for name in ("cpu_offloading", "cpu_offloading_activations", "cpu_offloading_weights"):
            filling.set(name, False, "not supported on the CPU")
        filling.set("cpu_offloading_layers", None, "not supported on the CPU")
        left.append("activation offloading: there is no other memory to offload to")
    if job.memory.optim_cpu_offloading:
        filling.set("optim_cpu_offloading", False, "not supported on the CPU")
        left.append("optimizer offloading and the precision-aware optimizer: they do not change the result")
    if discarding := NEED_TRANSFORMER_ENGINE & set(job.memory.recompute_modules):
        kept = tuple(m for m in job.memory.recompute_modules if m not in discarding)
        filling.set("recompute_modules", kept, "not supported on the CPU")
        if not kept and job.memory.recompute_granularity == "selective":
            filling.set("recompute_granularity", None, "not supported on the CPU")
        left.append(f"recomputation of {', '.join(sorted(discarding))}: it does not change the result")
    if job.speed.attention_backend in ("flash", "fused", "unfused"):
        left.append(f"attention backend {job.speed.attention_backend}: replaced by PyTorch's attention")
    if job.speed.cuda_graphs:
        filling.set("cuda_graphs", False, "not supported on the CPU")
        left.append("CUDA graphs: they do not change the result")
    if job.speed.tp_comm_overlap:
        filling.set("tp_comm_overlap", False, "not supported on the CPU")
        left.append("overlap of tensor parallel communication: it does not change the result")
    return tuple(left)


def _processes(filling: Filling, facts: Facts) -> None:
    if filling.job.launch.num_gpus is not None:
        return
    p = filling.job.parallelism
    needed = max(1, p.tensor_model_parallel_size * p.pipeline_model_parallel_size * p.context_parallel_size)
    expert_tp = p.expert_tensor_parallel_size or p.tensor_model_parallel_size
    for_experts = max(1, p.expert_model_parallel_size * expert_tp * p.pipeline_model_parallel_size)
    if p.expert_model_parallel_size > 1:
        needed = math.lcm(needed, for_experts)
    if filling.job.launch.executor == "slurm":
        filling.set("num_gpus", *(full_node(filling.job.launch, facts) or (FULL_NODE_GPUS, "a full node")))
    elif facts.host.gpus:
        filling.set("num_gpus", len(facts.host.gpus), "visible GPUs")
    else:
        nodes = max(1, filling.job.launch.num_nodes)
        filling.set("num_gpus", -(-needed // nodes), "CPU processes that the parallelism needs")


def _data_parallel(world_size: int, job: Job) -> int:
    """Return the data parallel size; 0 if the processes do not divide, which the checks report."""
    p = job.parallelism
    sizes = (p.tensor_model_parallel_size, p.pipeline_model_parallel_size, p.context_parallel_size)
    if min(sizes) < 1:
        return 0
    try:
        return arithmetic.data_parallel_size(
            world_size, tensor_parallel=sizes[0], pipeline_parallel=sizes[1], context_parallel=sizes[2]
        )
    except UsageError:
        return 0


def _batch_of_tokens(filling: Filling, world_size: int) -> None:
    """Convert a batch given in tokens to the nearest number of samples that the ranks can share."""
    job = filling.job
    tokens, length = job.batch.global_batch_tokens, max(1, job.data.seq_length or 1)
    if tokens is None or not 1 <= tokens <= MOST_TOKENS:
        return
    unit = max(1, job.batch.micro_batch_size) * max(1, _data_parallel(world_size, job))
    samples = max(unit, round(tokens / length / unit) * unit)
    rounded = "" if samples * length == tokens else f", rounded to a multiple of {unit}"
    origin = f"{tokens:,} tokens / {length:,}{rounded}"
    filling.replace("global_batch_tokens", "global_batch_size", samples, origin)


def within_reach(batch: Batch) -> bool:
    """Return whether a training length in tokens, or in tokens per weight, is in range; checks report others."""
    tokens, per_weight = batch.max_tokens, batch.tokens_per_param
    if tokens is not None and not 1 <= tokens <= MOST_TOKENS:
        return False
    return per_weight is None or 0 < per_weight <= MOST_PER_WEIGHT


def _steps_of_tokens(filling: Filling, model: ModelSpec, facts: Facts, batches: BatchSizes) -> None:
    """Convert a training length in tokens, or in tokens per weight, to the number of steps that reaches it."""
    batch = filling.job.batch
    if not within_reach(batch):
        return
    length = filling.job.data.seq_length or 1
    per_step = _per_step(batches, length)
    if batch.max_tokens is not None:
        steps = batches.steps_for(-(-batch.max_tokens // length))
        origin = f"{batch.max_tokens:,} tokens / {per_step}"
        filling.replace("max_tokens", "max_steps", steps, origin)
    elif batch.tokens_per_param is not None:
        weights = parameters_of(filling.job, model, facts).active_non_embedding
        steps = batches.steps_for(math.ceil(batch.tokens_per_param * weights / length))
        origin = f"{batch.tokens_per_param:g} tokens for each of {weights:,} weights / {per_step}"
        filling.replace("tokens_per_param", "max_steps", steps, origin)


def _per_step(batches: BatchSizes, length: int) -> str:
    """Return the tokens or samples of a step, in words."""
    less = "" if batches.constant else ", with other batch sizes before"
    return f"{max(1, batches.full * length):,} per step{less}"


def _stream(filling: Filling, facts: Facts, world_size: int, batches: BatchSizes) -> StreamSpec | None:
    """Return the sources of a stream, and fill in its open settings."""
    given, run = facts.stream, facts.run
    if given is None or given.error:
        return given
    job = filling.job
    stream = with_text_key(given, job.stream.text_key)
    if stream.unit:
        filling.default("blend_by", lambda: stream.unit, "the mixture file")
    if "num_workers" not in filling.origins and not job.data.num_workers:
        cpus = facts.host.num_cpus // max(1, job.launch.num_gpus or 1)
        workers = STREAM_WORKERS if job.launch.executor == "slurm" else max(1, min(STREAM_WORKERS, cpus))
        filling.set("num_workers", workers, "rows are tokenised in worker processes")
    ranks = _data_parallel(world_size, job)
    before = run.saved.values.get("stream_readers")
    if (
        before
        and run.last_checkpoint
        and job.checkpoint.resume == "auto"
        and job.stream.data_resume == "exact"
    ):
        filling.default("stream_readers", lambda: before, "the run so far")
    ramp, workers = batches.ramp, filling.job.data.num_workers
    # the readers must share every batch
    batch = math.gcd(batches.full, ramp.start, ramp.increment) if ramp else batches.full
    filling.default("stream_readers", lambda: default_readers(ranks, batch, workers), "several for each rank")
    whole = tokens_to_end(stream, _unit(filling.job), job.stream.stopping_strategy)
    if whole and job.stream.stopping_strategy != "fixed-tokens":
        samples = whole // max(1, job.data.seq_length or 1)
        filling.default(
            "max_steps",
            lambda: max(1, batches.steps_within(samples)),
            f"{whole:,} tokens from the sizes of the sources",
        )
    filling.default("max_steps", lambda: 0, "unknown")
    return stream


def _unit(job: Job) -> str:
    return job.data.blend_by or "tokens"


def _outlook(job: Job, stream: StreamSpec, batches: BatchSizes) -> tuple[Outlook, ...]:
    tokens = batches.samples(job.batch.max_steps or 0) * (job.data.seq_length or 1)
    return outlook(stream, _unit(job), max(0, tokens))


def _steps(filling: Filling, epoch: int, batches: BatchSizes) -> None:
    """Set the number of steps: one epoch, unless it is given."""
    origin = f"one epoch: {epoch:,} samples / {_per_step(batches, 1)}"
    filling.default("max_steps", lambda: batches.steps_within(epoch), origin)
