"""Bytes of weights, gradients and optimizer state: Megatron's buffers, element by element.

Follows `megatron.core.distributed.param_and_grad_buffer._ParamAndGradBuffer` (0.14 to 0.16) and
`megatron.core.optimizer.distrib_optimizer`: with the distributed optimizer, every tensor starts at a multiple of 64
elements, every bucket ends at a multiple of lcm(data parallel size, 128), and a rank holds fp32 weights and Adam's two
moments for its slice of every bucket.

fp8 does not change the total: matrices are kept twice in fp8, plain and transposed, instead of once in bf16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nemolaunch.estimate.layout import Layout
from nemolaunch.estimate.tensors import LocalTensor

# Default of DistributedDataParallelConfig.bucket_size: max(40M, 1M per data parallel rank)
BUCKET_ELEMENTS = 40_000_000
BUCKET_ELEMENTS_PER_RANK = 1_000_000
TENSOR_ALIGNMENT = 64
BUCKET_ALIGNMENT = 128
GRADIENT_BYTES = 4  # NeMo's precision plugins set grad_reduce_in_fp32
HOST_GRADIENT_BYTES = 4  # copies of gradients for the offloaded optimizer


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """Buffer sizes on one rank, in bytes.

    Attributes:
        parameters, gradients, optimizer: on the GPU.
        host_optimizer: optimizer state in host memory, with its copies of gradients
            (`megatron.core.optimizer.cpu_offloading.HybridDeviceOptimizer`).
        parameter_elements: number of weights on this rank, without padding.
    """

    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    host_optimizer: int = 0
    parameter_elements: int = 0

    def __add__(self, other: Buffers) -> Buffers:
        return Buffers(
            parameters=self.parameters + other.parameters,
            gradients=self.gradients + other.gradients,
            optimizer=self.optimizer + other.optimizer,
            host_optimizer=self.host_optimizer + other.host_optimizer,
            parameter_elements=self.parameter_elements + other.parameter_elements,
        )


def bucket_elements(layout: Layout, stage: int, chunk: int) -> int | None:
    """Return the size at which a gradient bucket is closed; None for a single bucket (later stages and chunks)."""
    if stage > 0 or chunk > 0:
        return None
    return max(BUCKET_ELEMENTS, BUCKET_ELEMENTS_PER_RANK * layout.data)


def rank_buffers(chunks: Sequence[Sequence[LocalTensor]], layout: Layout, stage: int) -> Buffers:
    """Return the buffers of the fullest data parallel rank of a stage, given the tensors of its model chunks."""
    total = Buffers()
    for number, tensors in enumerate(chunks):
        size = bucket_elements(layout, stage, number)
        for expert in (False, True):
            own = [t for t in tensors if t.expert == expert]
            if own:
                ranks = layout.expert_shards if expert else layout.optimizer_shards
                total += _group(own, layout, size, ranks)
    return total


def _group(tensors: Sequence[LocalTensor], layout: Layout, size: int | None, ranks: int) -> Buffers:
    elements = sum(t.numel for t in tensors)
    if layout.fsdp_shard:  # everything is split evenly: bf16 and fp32 weights, fp32 gradients, Adam's moments
        own = -(-elements // layout.fsdp_shard)
        return _bytes(elements, own, own, layout)
    if layout.distributed_optimizer:
        allocated, owned = sharded_elements(tensors, size, ranks)
    else:
        allocated = owned = elements
    return _bytes(elements, allocated, owned, layout)


def unpadded_buffers(elements: tuple[int, int], layout: Layout) -> Buffers:
    """Return the buffers for (ordinary, expert) weight counts on a rank, without padding."""
    total = Buffers()
    for count, ranks in zip(elements, (layout.optimizer_shards, layout.expert_shards), strict=True):
        if layout.fsdp_shard:
            own = -(-count // layout.fsdp_shard)
            total += _bytes(count, own, own, layout)
        else:
            total += _bytes(
                count, count, -(-count // ranks) if layout.distributed_optimizer else count, layout
            )
    return total


def _bytes(elements: int, allocated: int, owned: int, layout: Layout) -> Buffers:
    """Return buffers of `allocated` elements, `owned` of them with optimizer state."""
    state = owned * (layout.moment_bytes + layout.master_bytes)
    moved = math.floor(state * layout.optimizer_offload)
    copies = math.floor(owned * layout.optimizer_offload) * HOST_GRADIENT_BYTES
    return Buffers(
        parameters=allocated * layout.parameter_bytes,
        gradients=allocated * GRADIENT_BYTES,
        optimizer=state - moved,
        host_optimizer=moved + copies,
        parameter_elements=elements,
    )


def sharded_elements(tensors: Sequence[LocalTensor], size: int | None, ranks: int) -> tuple[int, int]:
    """Return the elements of the padded buffer, and of the weights in the fullest rank's slices of its buckets."""
    unit = math.lcm(ranks, BUCKET_ALIGNMENT)
    buckets: list[_Bucket] = []
    start = bucket_start = 0
    inside: list[tuple[int, int]] = []

    def close(end: int) -> int:
        end = -(-end // unit) * unit
        buckets.append(_Bucket(bucket_start, end, tuple(inside)))
        inside.clear()
        return end

    for tensor in reversed(tensors):
        start = -(-start // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
        if tensor.shared_embedding and inside:
            start = bucket_start = close(start)
        end = start + tensor.numel
        inside.append((start, end))
        if (size is not None and end - bucket_start >= size) or tensor.shared_embedding:
            end = bucket_start = close(end)
        start = end
    if inside:
        start = close(start)
    return start, _most_owned(buckets, ranks)


@dataclass(frozen=True)
class _Bucket:
    """A section of the buffer, with the positions of its tensors in the buffer."""

    start: int
    end: int
    tensors: tuple[tuple[int, int], ...]

    @property
    def has_gaps(self) -> bool:
        """Whether alignment leaves gaps between tensors."""
        return sum(b - a for a, b in self.tensors) != self.tensors[-1][1] - self.start


def _most_owned(buckets: Sequence[_Bucket], ranks: int) -> int:
    """Return the weight elements in the slices of the fullest rank."""
    if not any(bucket.has_gaps for bucket in buckets):  # then the first rank is the fullest
        return sum(min((b.end - b.start) // ranks, b.tensors[-1][1] - b.start) for b in buckets)
    owned = [0] * ranks
    for bucket in buckets:
        slice_size = (bucket.end - bucket.start) // ranks
        for a, b in bucket.tensors:
            first, last = (a - bucket.start) // slice_size, (b - 1 - bucket.start) // slice_size
            for rank in range(first, last + 1):
                low = bucket.start + rank * slice_size
                owned[rank] += min(b, low + slice_size) - max(a, low)
    return max(owned)
