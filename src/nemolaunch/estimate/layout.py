"""The layout of a model over GPUs: the numbers that memory and time depend on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from nemolaunch.arithmetic.pipeline import pipeline_split
from nemolaunch.catalogue import Architecture, ModelSpec, Recipe
from nemolaunch.job import Job
from nemolaunch.resolve import Resolved, attention
from nemolaunch.resolve.recompute import selected_modules


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Parallel sizes, batch and memory savings of a job. Sizes count ranks, lengths count tokens.

    Attributes:
        recompute_num_layers: layers per recomputed chunk (uniform), or recomputed layers per chunk (block).
        offloaded_layers: layers whose activations are kept in host memory.
        moment_bytes: bytes per weight of Adam's two moments, or of SGD's momentum.
        master_bytes: bytes per weight of the optimizer's fp32 weights, if they are separate from the model's.
        optimizer_offload: fraction of the optimizer state in host memory.
        optimizer_instances: copies of the sharded optimizer state.
        scores: bytes of each value kept per token pair and head, if attention keeps scores.
        own_scores: whether scores are also kept without Transformer Engine, and on a CPU.
        window_scores: whether layers with a window keep them too; else kernels support these layers' narrower heads.
        cuda_graphs: layers allocate from memory that nothing else can use.
        both_sides: tokens also attend to later tokens.
        recipe_pipeline: number of pipeline stages that the recipe's uneven split is meant for.
        fsdp_shard, fsdp_replicate: fully sharded data parallelism instead of Megatron's: ranks that share one copy
            of everything, and number of copies. `None`: not used.
    """

    world_size: int
    tensor: int = 1
    pipeline: int = 1
    virtual: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int = 1
    sequence_parallel: bool = False
    micro_batch_size: int = 1
    global_batch_size: int = 1
    seq_length: int = 1
    recompute_granularity: str | None = None
    recompute_method: str | None = None
    recompute_num_layers: int | None = None
    recompute_modules: tuple[str, ...] = ()
    offloaded_layers: int = 0
    precision: str = "bf16"
    fp8: bool = False
    fp8_recipe: str = "delayed"
    distributed_optimizer: bool = True
    optimizer: str = "adam"
    moment_bytes: int = 8
    master_bytes: int = 4
    optimizer_offload: float = 0.0
    optimizer_instances: int = 1
    fsdp_shard: int | None = None
    fsdp_replicate: int | None = None
    scores: tuple[int, ...] = ()
    own_scores: bool = False
    window_scores: bool = True
    cuda_graphs: bool = False
    both_sides: bool = False
    recipe_pipeline: int | None = None
    gpus_per_node: int = 8

    @property
    def data(self) -> int:
        """Data parallel size; at least 1, even if the world size does not divide."""
        return max(1, self.world_size // (self.tensor * self.pipeline * self.context))

    @property
    def optimizer_shards(self) -> int:
        """Ranks that share a copy of the optimizer state of ordinary weights, out of DP·CP."""
        return max(1, self.data * self.context // self.optimizer_instances)

    @property
    def expert_shards(self) -> int:
        """Ranks that share a copy of the optimizer state of expert weights."""
        copies = self.expert_tensor * self.expert * self.pipeline * self.optimizer_instances
        return max(1, self.world_size // copies)

    @property
    def num_microbatches(self) -> int:
        """Forward passes per rank in an optimizer step."""
        return max(1, self.global_batch_size // (self.micro_batch_size * self.data))

    @property
    def tokens(self) -> int:
        """Tokens per microbatch that a rank's attention and MLP process."""
        return self.micro_batch_size * math.ceil(self.seq_length / self.context)

    @property
    def sequence_shards(self) -> int:
        """Number of ranks over which norms and the residual stream are split."""
        return self.tensor if self.sequence_parallel else 1

    @property
    def parameter_bytes(self) -> int:
        """Bytes per weight or activation value."""
        return 4 if self.precision == "fp32" else 2

    def with_values(self, **values: object) -> Layout:
        """Return a copy with some values changed."""
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]


def layout_of(resolved: Resolved) -> Layout:
    """Return the layout of a resolved job. Invalid values are replaced by the nearest valid ones, without errors."""
    layout = layout_of_job(resolved.job, resolved.model, resolved.world_size)
    local = resolved.job.launch.executor == "local"
    if local and not resolved.facts.host.transformer_engine and not layout.own_scores:
        return layout.with_values(scores=())  # PyTorch's attention is used instead
    return layout


def layout_of_job(job: Job, model: ModelSpec, world_size: int) -> Layout:
    """Return the layout of a job on `world_size` ranks, whether or not the job is resolved."""
    p, m, b, recipe = job.parallelism, job.memory, job.batch, model.recipe
    tensor = max(1, p.tensor_model_parallel_size)
    pipeline = max(1, min(p.pipeline_model_parallel_size, model.architecture.num_layers))
    return Layout(
        world_size=max(1, world_size),
        tensor=tensor,
        pipeline=pipeline,
        virtual=_chunks(p.virtual_pipeline_model_parallel_size, pipeline, model.architecture.num_layers),
        context=max(1, p.context_parallel_size),
        expert=max(1, p.expert_model_parallel_size),
        expert_tensor=max(1, p.expert_tensor_parallel_size or tensor),
        sequence_parallel=p.sequence_parallel and tensor > 1,
        micro_batch_size=max(1, b.micro_batch_size),
        global_batch_size=max(1, b.global_batch_size),
        seq_length=max(1, job.data.seq_length or model.architecture.seq_length),
        **recompute_of_job(job, recipe),  # type: ignore[arg-type]
        offloaded_layers=max(0, m.cpu_offloading_layers or 0) if m.cpu_offloading else 0,
        precision=b.precision,
        fp8=b.fp8,
        fp8_recipe=b.fp8_recipe,
        distributed_optimizer=not job.optimizer.disable_dist_optim,
        optimizer_instances=max(1, job.optimizer.num_distributed_optimizer_instances),
        optimizer=job.optimizer.optimizer,
        **optimizer_bytes(job, recipe),  # type: ignore[arg-type]
        optimizer_offload=min(1.0, max(0.0, m.optim_cpu_offloading_frac)) if m.optim_cpu_offloading else 0.0,
        **scores_of(job, model, tensor),  # type: ignore[arg-type]
        cuda_graphs=job.speed.cuda_graphs,
        both_sides=job.objective.objective == "mlm" or model.architecture.kind == "bert",
        recipe_pipeline=recipe.pipeline_model_parallel_size,
        gpus_per_node=max(1, job.launch.num_gpus or min(8, world_size)),
    )


def scores_of(job: Job, model: ModelSpec, tensor: int) -> dict[str, object]:
    """Return the layout values that describe which attention scores are kept."""
    if not attention.keeps_scores(job, model):
        return {}
    heads = max(1, model.architecture.num_attention_heads // tensor)
    length = job.data.seq_length or model.architecture.seq_length
    own = attention.has_own(model) or attention.backend_of(job, model) == "local"
    return {
        "scores": attention.softmax_values(job, model, heads, length),
        "own_scores": own,
        "window_scores": own or attention.windows_keep_scores(job, model),
    }


MOMENT_BYTES = {"adam": 8, "sgd": 4}  # fp32
MASTER_BYTES = 4
# Transformer Engine's precision-aware Adam stores only the low bits that bf16 weights lack (store_param_remainders)
REMAINDER_BYTES = 2


def optimizer_bytes(job: Job, recipe: Recipe) -> dict[str, int]:
    """Return the bytes per weight of optimizer state; the recipe's precision-aware optimizer is used if possible."""
    o, in_bf16 = job.optimizer, job.batch.precision == "bf16"
    aware = recipe.moment_bytes is not None and o.optimizer == "adam" and not o.disable_dist_optim
    moments = MOMENT_BYTES[o.optimizer]
    if aware and recipe.moment_bytes is not None and not job.memory.optim_cpu_offloading:
        return {"moment_bytes": recipe.moment_bytes, "master_bytes": REMAINDER_BYTES if in_bf16 else 0}
    return {"moment_bytes": moments, "master_bytes": MASTER_BYTES if in_bf16 else 0}


def _chunks(asked: int | None, pipeline: int, num_layers: int) -> int:
    """Return the model chunks per stage, limited to its number of layers."""
    return max(1, min(asked or 1, num_layers // pipeline)) if pipeline > 1 else 1


def recompute_of(recipe: Recipe) -> dict[str, object]:
    """Return what a recipe recomputes by default, which applies if the job does not specify it."""
    if recipe.recompute_granularity is None:
        return {}
    return {
        "recompute_granularity": recipe.recompute_granularity,
        "recompute_method": recipe.recompute_method,
        "recompute_num_layers": recipe.recompute_num_layers,
        "recompute_modules": recipe.recompute_modules or ("core_attn",),
    }


def recompute_of_job(job: Job, recipe: Recipe) -> dict[str, object]:
    """Return what a job recomputes: what it requests, else what the recipe sets."""
    m, found = job.memory, recompute_of(recipe)
    if m.recompute_granularity or m.cpu_offloading:
        found = {
            "recompute_granularity": m.recompute_granularity,
            "recompute_method": m.recompute_method,
            "recompute_num_layers": m.recompute_num_layers,
        }
    return {**found, "recompute_modules": selected_modules(job, recipe)}


def layout_of_recipe(recipe: Recipe, **changes: object) -> Layout:
    """Return the layout that NVIDIA's recipe sets, with some values changed."""
    layout = Layout(
        world_size=recipe.num_nodes * recipe.num_gpus_per_node,
        tensor=recipe.tensor_model_parallel_size,
        pipeline=recipe.pipeline_model_parallel_size,
        virtual=recipe.virtual_pipeline_model_parallel_size or 1,
        context=recipe.context_parallel_size,
        expert=recipe.expert_model_parallel_size,
        expert_tensor=recipe.expert_tensor_parallel_size or recipe.tensor_model_parallel_size,
        sequence_parallel=recipe.sequence_parallel and recipe.tensor_model_parallel_size > 1,
        micro_batch_size=recipe.micro_batch_size,
        global_batch_size=recipe.global_batch_size,
        seq_length=recipe.seq_length,
        gpus_per_node=recipe.num_gpus_per_node,
        recipe_pipeline=recipe.pipeline_model_parallel_size,
        **recompute_of(recipe),  # type: ignore[arg-type]
        **optimizer_bytes(Job(), recipe),  # type: ignore[arg-type]
    )
    return layout.with_values(**changes) if changes else layout


def stage_layers(architecture: Architecture, layout: Layout, stage: int) -> tuple[tuple[int, ...], ...]:
    """Return the decoder layers of a pipeline stage, starting at 0: one tuple per model chunk.

    Chunks alternate: the first chunk of every stage, then the second. If the layers do not divide, the first stages
    take one more; Megatron rejects that, but it can still be estimated.
    """
    sizes = _chunk_sizes(architecture, layout)
    out, start = [], 0
    for chunk in range(layout.virtual):
        for s in range(layout.pipeline):
            size = max(0, sizes[s][chunk])
            if s == stage:
                out.append(tuple(range(start, min(start + size, architecture.num_layers))))
            start += size
    return tuple(out)


def _chunk_sizes(a: Architecture, layout: Layout) -> list[list[int]]:
    """Return the number of layers of every model chunk, by stage."""
    stages, chunks = layout.pipeline, layout.virtual
    split = pipeline_split(a, stages, chunks, layout.recipe_pipeline)
    counts = list(split.layers) if split else _nearly_even(a.num_layers, stages)
    ends = split is not None and split.embedding, split is not None and split.loss
    counts[0] += ends[0]
    counts[-1] += ends[1]
    sizes = [_nearly_even(count, chunks) for count in counts]
    sizes[0][0] -= ends[0]
    sizes[-1][-1] -= ends[1]
    return sizes


def _nearly_even(total: int, parts: int) -> list[int]:
    return [total // parts + (1 if part < total % parts else 0) for part in range(parts)]
