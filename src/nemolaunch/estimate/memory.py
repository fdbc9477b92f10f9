"""Memory of the fullest rank, by component."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.catalogue import Architecture
from nemolaunch.estimate import activations as act
from nemolaunch.estimate.buffers import rank_buffers, unpadded_buffers
from nemolaunch.estimate.layout import Layout, stage_layers
from nemolaunch.estimate.tensors import chunk_tensors, local_elements

GIB = 2**30
# CUDA context, cuBLAS and Transformer Engine workspaces; then NCCL buffers per kind of process group in use.
CONTEXT_BYTES = int(1.0 * GIB)
COMMUNICATOR_BYTES = int(0.4 * GIB)
# Memory that the caching allocator holds but does not use, as a share of the activations.
FRAGMENTATION = 0.05
# Known errors, as shares of a component; buffers are exact (tested against Megatron's own tensors).
ACTIVATION_ERROR = 0.10
OVERHEAD_ERROR_BYTES = int(1.5 * GIB)


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Memory of the fullest GPU, in bytes.

    Attributes:
        rank: description of the ranks it applies to.
        stage: their pipeline stage.
        parameters, gradients, optimizer: Megatron's buffers.
        activations: kept for the backward pass, for all microbatches in flight.
        logits: working set of the loss, on the last stage.
        workspace: gradients and gathered inputs alive during one layer's backward pass.
        overhead: CUDA context, libraries, communication buffers, fragmentation.
        host: this rank's bytes in host memory.
        parameter_elements: number of weights on this rank.
    """

    rank: str
    stage: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    overhead: int
    host: int
    parameter_elements: int

    @property
    def total(self) -> int:
        """Sum of all components on the GPU."""
        fixed = self.parameters + self.gradients + self.optimizer + self.overhead
        return fixed + self.activations + self.logits + self.workspace

    @property
    def error(self) -> int:
        """Error of the total in bytes, in either direction."""
        share = self.activations + self.logits + self.workspace
        return int(share * ACTIVATION_ERROR) + (OVERHEAD_ERROR_BYTES if self.overhead else 0)

    def components(self) -> dict[str, int]:
        """Return the bytes of each component by name, in display order."""
        names = ("parameters", "gradients", "optimizer", "activations", "logits", "workspace", "overhead")
        return {name: getattr(self, name) for name in names}


def memory(
    architecture: Architecture, layout: Layout, vocab_rows: int, *, gpu: bool = True, exact: bool = True
) -> MemoryEstimate:
    """Estimate the memory of the fullest rank of all pipeline stages.

    `gpu=False` estimates a process of a CPU rehearsal. `exact=False` ignores the padding of buffers, for searches.
    """
    stages = [
        stage_memory(architecture, layout, stage, vocab_rows, gpu=gpu, exact=exact)
        for stage in distinct_stages(layout)
    ]
    return max(stages, key=lambda m: m.total)


def distinct_stages(layout: Layout) -> tuple[int, ...]:
    """Return first, second and last stage; the others have the same layers and fewer microbatches in flight."""
    return tuple(sorted({0, min(1, layout.pipeline - 1), layout.pipeline - 1}))


def stage_memory(
    architecture: Architecture,
    layout: Layout,
    stage: int,
    vocab_rows: int,
    *,
    gpu: bool = True,
    exact: bool = True,
) -> MemoryEstimate:
    """Estimate the memory of a rank of one pipeline stage."""
    a = architecture
    k = act.tokens_of(layout, torch=not gpu)
    if exact:
        buffers = rank_buffers(chunk_tensors(a, layout, stage, vocab_rows), layout, stage)
    else:
        buffers = unpadded_buffers(local_elements(a, layout, stage, vocab_rows), layout)
    chunks = stage_layers(a, layout, stage)
    last = stage == layout.pipeline - 1
    kept, extra = _kept(a, layout, chunks, stage, k)
    logits = act.output_peak_bytes(a, k, vocab_rows) if last else 0.0
    kept += act.prediction_bytes(a, k) * (a.mtp_num_layers or 0) if last else 0.0
    if last and a.mtp_num_layers:
        logits *= 1 + a.mtp_num_layers
    if stage == 0 and a.encoder_num_layers:
        kept += a.encoder_num_layers * act.layer_bytes(a, 0, k)
    overhead = 0.0
    if gpu:
        groups = [layout.tensor, layout.pipeline, layout.context, layout.expert, layout.data]
        overhead = CONTEXT_BYTES + COMMUNICATOR_BYTES * sum(n > 1 for n in groups) + FRAGMENTATION * kept
    # the loss ends before the layers' backward passes begin, so only the larger of the two counts; but memory that
    # graphs have allocated stays reserved (PyTorch, CUDA semantics, "Graph memory management")
    workspace = extra if layout.cuda_graphs else max(0.0, extra - logits)
    parameters = buffers.parameters
    if layout.fp8 and layout.fp8_recipe == "blockwise":
        parameters += _fp8_copies(a, layout, stage, vocab_rows)
    if layout.fsdp_shard:
        workspace += _gathered(a, layout, stage, vocab_rows)
    return MemoryEstimate(
        rank=_name(stage, layout),
        stage=stage,
        parameters=parameters,
        gradients=buffers.gradients,
        optimizer=buffers.optimizer,
        activations=int(kept),
        logits=int(logits),
        workspace=int(workspace),
        overhead=int(overhead),
        host=buffers.host_optimizer + int(_offloaded(a, layout, chunks, k)),
        parameter_elements=buffers.parameter_elements,
    )


def _kept(
    a: Architecture, layout: Layout, chunks: tuple[tuple[int, ...], ...], stage: int, k: act.Tokens
) -> tuple[float, float]:
    """Return the bytes kept for all microbatches in flight, and the most that one layer's backward pass adds."""
    full_layers = [layer for chunk in chunks for layer in chunk]
    if not full_layers:
        return 0.0, 0.0
    workspace = max(act.layer_workspace_bytes(a, layer, k) for layer in full_layers)
    per_chunk, recomputed = [], 0.0
    offloaded = layout.offloaded_layers
    for chunk in chunks:
        size, again = _chunk_bytes(a, layout, chunk[offloaded:] if offloaded else chunk, k)
        per_chunk.append(size)
        recomputed = max(recomputed, again)
    in_flight = chunks_in_flight(layout, stage)
    largest = sorted(per_chunk, reverse=True)
    whole, rest = divmod(in_flight, len(chunks))
    return whole * sum(per_chunk) + sum(largest[:rest]), workspace + recomputed


def _chunk_bytes(
    a: Architecture, layout: Layout, layers: tuple[int, ...], k: act.Tokens
) -> tuple[float, float]:
    """Return the bytes that a microbatch keeps in a model chunk, and the most that recomputing restores at once."""
    sizes = [act.layer_bytes(a, layer, k) for layer in layers]
    if layout.recompute_granularity != "full" or not sizes:
        return sum(sizes), 0.0
    count = min(len(sizes), max(1, layout.recompute_num_layers or 1))
    checkpoint = act.checkpoint_bytes(a, k)
    if layout.recompute_method == "block":
        return count * checkpoint + sum(sizes[count:]), max(sizes[:count])
    groups = -(-len(sizes) // count)
    return groups * checkpoint, max(sum(sizes[g * count : (g + 1) * count]) for g in range(groups))


def chunks_in_flight(layout: Layout, stage: int) -> int:
    """Return the maximum number of forward passes of model chunks that still await their backward pass.

    Megatron's schedules (`pipeline_parallel.schedules.get_pp_rank_microbatches`): warm-up passes plus one.
    """
    behind = layout.pipeline - stage - 1
    warm_up = behind
    if layout.virtual > 1:
        warm_up = 2 * behind + (layout.virtual - 1) * layout.pipeline
    return min(warm_up + 1, layout.num_microbatches * layout.virtual)


def _offloaded(a: Architecture, layout: Layout, chunks: tuple[tuple[int, ...], ...], k: act.Tokens) -> float:
    return sum(act.layer_bytes(a, layer, k) for chunk in chunks for layer in chunk[: layout.offloaded_layers])


def _fp8_copies(a: Architecture, layout: Layout, stage: int, vocab_rows: int) -> int:
    """Return the bytes of fp8 copies: blockwise scaling keeps each matrix in fp8, plain and transposed, plus bf16."""
    chunks = chunk_tensors(a, layout, stage, vocab_rows)
    return 2 * sum(t.numel for chunk in chunks for t in chunk if t.matrix)


def _gathered(a: Architecture, layout: Layout, stage: int, vocab_rows: int) -> float:
    """Return the bytes gathered when fully sharded: two whole layers, and one layer's fp32 gradients."""
    tensors = chunk_tensors(a, layout, stage, vocab_rows)
    total = sum(t.numel for chunk in tensors for t in chunk)
    layers = max(1, sum(len(chunk) for chunk in stage_layers(a, layout, stage)))
    embedding = max((t.numel for chunk in tensors for t in chunk), default=0)
    layer = total / layers
    return max(embedding, 2 * layer) * layout.parameter_bytes + layer * 4


def _name(stage: int, layout: Layout) -> str:
    if layout.pipeline == 1:
        return "every rank"
    ends = {0: "first", layout.pipeline - 1: "last"}
    return f"ranks of the {ends.get(stage, f'{stage + 1}.')} pipeline stage"
