"""Search for parallel layouts that fit, ranked by speed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from nemolaunch.arithmetic.pipeline import pipeline_split
from nemolaunch.catalogue import Architecture, Gpu
from nemolaunch.estimate.estimate import USABLE_SHARE
from nemolaunch.estimate.layout import Layout
from nemolaunch.estimate.memory import MemoryEstimate, memory
from nemolaunch.estimate.performance import StepTime, step_time

TENSOR_SIZES = (1, 2, 4, 8)
CONTEXT_SIZES = (1, 2, 4, 8, 16)
MICRO_BATCH_SIZES = (1, 2, 4, 8)
MOST_CHUNKS = 16  # virtual stages per pipeline stage
NEAREST = 6  # candidates if the requested layout does not fit
RECOMPUTED = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
# What NeMo's `configure_model` rejects by kind of model. Gemma 2 (recognised by its capped scores) supports neither
# context parallelism nor virtual stages; Gemma 3 (by its two rotary bases) does not support context parallelism.
NO_CONTEXT = ("mamba", "t5", "bert")
NO_PIPELINE = ("t5", "bert")


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A layout with its step time and the memory of its fullest GPU.

    `tight`: it only fits if the estimate is not much too low.
    """

    layout: Layout
    time: StepTime
    memory: MemoryEstimate
    tight: bool


def suggestions(
    architecture: Architecture,
    base: Layout,
    gpu: Gpu,
    vocab_rows: int,
    *,
    most: int | None = None,
) -> list[Suggestion]:
    """Return layouts of a model on the GPUs of `base`, fastest first.

    For each combination of tensor, pipeline, context and expert parallel sizes, only the fastest choice of micro batch
    size, virtual stages and recomputation that fits is returned. World size, global batch size, sequence length and
    number format are those of `base`.
    """
    best = []
    for sizes in layouts(architecture, base, vocab_rows):
        found = _fastest(architecture, sizes, gpu, vocab_rows)
        if found:
            best.append(found)
    best.sort(key=lambda s: s.time.total)
    return best[:most]


def nearest_fitting(
    architecture: Architecture, asked: Layout, gpu: Gpu, vocab_rows: int
) -> Iterator[Suggestion]:
    """Yield layouts that are certain to fit if the requested one does not: first with its sizes, then a few others.

    The others are those with the smallest replicas, fastest first. Neither the context parallel size nor the batch
    sizes increase.
    """
    micros = sorted({1, asked.micro_batch_size})
    whole = asked.with_values(
        virtual=1, recompute_granularity=None, recompute_method=None, recompute_num_layers=None
    )
    own = _fastest(architecture, whole, gpu, vocab_rows, micros, sure=True)
    if own:
        yield own
    sizes = sorted(
        layouts(architecture, asked, vocab_rows, (asked.context,)),
        key=lambda p: (p.tensor * p.pipeline, p.expert * p.expert_tensor),
    )
    found = (_fastest(architecture, p, gpu, vocab_rows, micros, sure=True) for p in sizes)
    yield from sorted(itertools.islice(filter(None, found), NEAREST), key=lambda s: s.time.total)


def layouts(
    a: Architecture, base: Layout, vocab_rows: int, contexts: tuple[int, ...] = CONTEXT_SIZES
) -> Iterator[Layout]:
    """Yield every combination of parallel sizes that Megatron supports, with a micro batch size of 1."""
    for tensor in TENSOR_SIZES:
        if tensor > base.gpus_per_node or not splits_heads(a, tensor) or vocab_rows % tensor:
            continue
        for pipeline in _pipelines(a, base.world_size // tensor, base.recipe_pipeline):
            for context in contexts:
                ranks = tensor * pipeline * context
                if base.world_size % ranks or not splits_sequence(a, base.seq_length, tensor, context):
                    continue
                data = base.world_size // ranks
                if base.global_batch_size % data:
                    continue
                for expert, expert_tensor in _expert_sizes(a, base.world_size // pipeline, tensor):
                    yield base.with_values(
                        tensor=tensor,
                        pipeline=pipeline,
                        context=context,
                        expert=expert,
                        expert_tensor=expert_tensor,
                        sequence_parallel=tensor > 1,
                        virtual=1,
                        micro_batch_size=1,
                        recompute_granularity=None,
                        recompute_method=None,
                        recompute_num_layers=None,
                        recompute_modules=(),
                    )


def splits_heads(a: Architecture, tensor: int) -> bool:
    """Return whether attention heads, key/value groups and Mamba heads divide by the tensor parallel size."""
    if a.kind == "mamba" and a.mamba_num_groups % tensor:
        return False
    has_attention = not a.hybrid_override_pattern or "*" in a.hybrid_override_pattern
    groups = a.num_attention_heads if a.multi_latent_attention else a.num_query_groups
    return not has_attention or (a.num_attention_heads % tensor == 0 and groups % tensor == 0)


def splits_sequence(a: Architecture, seq_length: int, tensor: int, context: int) -> bool:
    """Return whether the model supports this context parallel size and the sequence divides over both groups."""
    if context > 1 and (a.kind in NO_CONTEXT or a.attn_logit_softcapping or isinstance(a.rotary_base, tuple)):
        return False
    return seq_length % (2 * context if context > 1 else 1) == 0 and seq_length % (tensor * context) == 0


def _pipelines(a: Architecture, ranks: int, recipe_stages: int | None) -> list[int]:
    most = 1 if a.kind in NO_PIPELINE else min(ranks, a.num_layers)
    sizes = [size for size in range(1, most + 1) if ranks % size == 0]
    return [size for size in sizes if pipeline_split(a, size, None, recipe_stages)]


def _expert_sizes(a: Architecture, ranks: int, tensor: int) -> list[tuple[int, int]]:
    """Return pairs of expert and expert tensor parallel sizes: experts whole, or split like the rest."""
    if not a.num_moe_experts:
        return [(1, tensor)]
    found = []
    for expert_tensor in sorted({1, tensor}):
        for expert in (1, 2, 4, 8, 16, 32, 64, 128):
            if a.num_moe_experts % expert == 0 and ranks % (expert * expert_tensor) == 0:
                found.append((expert, expert_tensor))
    return found


def _fastest(
    a: Architecture,
    sizes: Layout,
    gpu: Gpu,
    vocab_rows: int,
    micros: Sequence[int] = MICRO_BATCH_SIZES,
    *,
    sure: bool = False,
) -> Suggestion | None:
    """Return the fastest variant of a layout that fits; `sure`: even if the estimate is too low by its error."""
    found: Suggestion | None = None
    lean = sizes.with_values(micro_batch_size=1, **RECOMPUTED)
    if memory(a, lean, vocab_rows, exact=False).total > gpu.memory_bytes:
        return None
    # a larger micro batch would cancel the benefit of context parallelism; NeMo versions have diverged with both
    for micro in micros if sizes.context == 1 else (1,):
        one = sizes.with_values(micro_batch_size=micro)
        if sizes.global_batch_size % (micro * sizes.data):
            continue
        for layout in _variants(a, one):
            used = memory(a, layout, vocab_rows, exact=False)
            tight = used.total + used.error > gpu.memory_bytes * USABLE_SHARE
            if used.total > gpu.memory_bytes or (sure and tight):
                continue
            time = step_time(a, layout, gpu, vocab_rows)
            if found is None or time.total < found.time.total:
                found = Suggestion(layout=layout, time=time, memory=used, tight=tight)
    return found


def _variants(a: Architecture, one: Layout) -> Iterator[Layout]:
    """Yield variants with virtual stages and recomputation, if Megatron supports them."""
    for chunks in _chunk_counts(a, one):
        split = one.with_values(virtual=chunks)
        yield split
        yield split.with_values(**RECOMPUTED)


def _chunk_counts(a: Architecture, one: Layout) -> list[int]:
    """Return possible numbers of virtual stages; more than one needs a multiple of `pipeline` microbatches."""
    stages, batches = one.pipeline, one.num_microbatches
    if stages == 1 or a.kind != "gpt" or a.attn_logit_softcapping or batches % stages:
        return [1]
    most = min(a.num_layers // stages, MOST_CHUNKS)
    return [n for n in range(1, most + 1) if pipeline_split(a, stages, n, one.recipe_pipeline)]


def reasons(better: Suggestion, worse: Suggestion) -> list[tuple[str, float]]:
    """Return the differences between two layouts: component of the step, and seconds saved (negative if lost).

    The largest comes first; components below a hundredth of the largest are omitted.
    """
    saved = [
        (field.name, getattr(worse.time, field.name) - getattr(better.time, field.name))
        for field in fields(StepTime)
    ]
    least = max(abs(seconds) for _, seconds in saved) / 100
    return sorted((s for s in saved if abs(s[1]) > least), key=lambda s: -abs(s[1]))
