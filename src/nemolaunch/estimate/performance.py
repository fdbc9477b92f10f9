"""Seconds per optimizer step in a layout, for ranking layouts.

A roofline model of each layer (matrix products, attention, memory traffic, kernel launches) plus exposed
communication. Absolute times are rough (`benchmarks/suggest` compares them with published runs); the purpose is to
compare layouts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from nemolaunch import arithmetic
from nemolaunch.arithmetic import LayerParameters
from nemolaunch.catalogue import Architecture, Gpu
from nemolaunch.estimate import activations as act
from nemolaunch.estimate.layout import Layout, stage_layers
from nemolaunch.estimate.memory import distinct_stages
from nemolaunch.estimate.published import peak
from nemolaunch.estimate.tensors import local_parameters
from nemolaunch.estimate.time import flops_of, recompute_overhead

# Share of the peak that large matrix products reach, by number format, and that attention reaches (always in bf16).
MATRIX_SHARE = {"bf16": 0.68, "fp8": 0.54, "fp32": 0.68}
EXPERT_SHARE = 0.7  # of that, for the many small products of experts
ATTENTION_SHARE = 0.5
# Rows or columns at which a matrix product reaches half of that share, because tiles of 128 to 256 are partly empty.
HALF_SIZE = 200.0
# Passes over a layer's saved activations: written forward, read backward, their gradients written and read.
TRAFFIC_PASSES = {"bf16": 4.0, "fp8": 5.0, "fp32": 4.0}
MEMORY_SHARE = 0.75  # share of the memory bandwidth that such passes reach
LINK_SHARE = 0.75  # share of a link's bandwidth that collectives reach
LAUNCH_S = {"dense": 0.5e-3, "experts": 6.0e-3}  # host time to launch a layer's kernels, forward and backward
SENDING_S = 30e-6  # latency of one exchange between pipeline stages
HIDDEN_TENSOR_SHARE = 0.4  # share of tensor parallel traffic hidden behind matrix products
HIDDEN_DATA_SHARE = 0.8  # share of one microbatch's time that can hide data parallel traffic
# Network bandwidth of a GPU, bytes/s one way: a port of 200 Gbit/s on DGX A100, 400 on DGX H100 to B200; PCIe 4.0 x16
# if GPUs have no NVLink.
NETWORK = {(8, 0): 25e9, (9, 0): 50e9, (10, 0): 50e9}
OTHER_NETWORK = 12.5e9
PCIE = 25e9
NVLINK_DOMAIN = {"gb200": 72}


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step, by component.

    Attributes:
        compute: layers of the slowest pipeline stage.
        recompute: recomputation of layers.
        tensor, context, expert: exposed communication of these groups.
        bubble: waiting for other pipeline stages, and exchanges between them.
        data: exposed communication of gradients and weights between replicas.
        optimizer: the update.
    """

    compute: float
    recompute: float
    tensor: float
    context: float
    expert: float
    bubble: float
    data: float
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


def step_time(architecture: Architecture, layout: Layout, gpu: Gpu, vocab_rows: int) -> StepTime:
    """Estimate the time of one optimizer step."""
    a, p = architecture, layout
    links = _Links(gpu, layout)
    k = act.tokens_of(layout)
    worst = max(
        (_stage(a, p, gpu, links, k, vocab_rows, s) for s in distinct_stages(p)), key=lambda t: t.total
    )
    busy = p.num_microbatches
    again = recompute_overhead(a, p) * worst.compute
    one = worst.total + again
    waiting = (p.pipeline - 1) / p.virtual * one
    if p.pipeline > 1:
        size = k.residual * a.hidden_size * p.parameter_bytes
        waiting += busy * p.virtual * 2 * (SENDING_S + 0.3 * size / links.between())
    weights = max(local_parameters(a, p, s, vocab_rows) for s in distinct_stages(p))
    return StepTime(
        compute=busy * worst.compute,
        recompute=busy * again,
        tensor=busy * worst.tensor,
        context=busy * worst.context,
        expert=busy * worst.expert,
        bubble=waiting,
        data=_data(p, links, weights, one),
        optimizer=_optimizer(p, gpu, weights),
    )


@dataclass(frozen=True)
class _Microbatch:
    """Seconds per microbatch on one stage."""

    compute: float
    tensor: float
    context: float
    expert: float

    @property
    def total(self) -> float:
        return self.compute + self.tensor + self.context + self.expert


class _Links:
    """Bandwidth within and between nodes, bytes/s one way."""

    def __init__(self, gpu: Gpu, layout: Layout) -> None:
        self._inside = LINK_SHARE * (gpu.nvlink_bandwidth / 2 if gpu.nvlink_bandwidth else PCIE)
        capability = gpu.compute_capability or (0, 0)
        self._between = LINK_SHARE * NETWORK.get(capability, OTHER_NETWORK)
        self._node = NVLINK_DOMAIN.get(gpu.name, layout.gpus_per_node)

    def between(self) -> float:
        """Return the bandwidth of one rank to another node."""
        return self._between

    def bandwidth(self, stride: int, size: int) -> float:
        """Return the bandwidth of a ring of `size` ranks, `stride` apart; ranks of a node share inter-node traffic."""
        if stride * size <= self._node:
            return self._inside
        return min(self._inside, self._between * max(1, self._node // stride))

    def exchange(self, size: int, copies: int, volume: float) -> float:
        """Return the seconds in which each of `size` neighbouring ranks sends `volume` bytes evenly to the others.

        A token with several copies for the same node crosses the network once, as in DeepEP.
        """
        inside = min(size, self._node)
        if size <= self._node:
            return volume * (size - 1) / size / self._inside
        others = size / self._node
        crossing = others * (1 - (1 - 1 / others) ** copies) / copies * (1 - 1 / others)
        return volume * (crossing / self._between + (inside - 1) / size / self._inside)


def _stage(
    a: Architecture, p: Layout, gpu: Gpu, links: _Links, k: act.Tokens, vocab_rows: int, stage: int
) -> _Microbatch:
    layers = [layer for chunk in stage_layers(a, p, stage) for layer in chunk]
    compute = tensor = context = expert = 0.0
    counted: dict[LayerParameters, tuple[float, float, float, float]] = {}
    for layer in layers:
        weights = arithmetic.layer_parameters(a, layer)
        if weights not in counted:
            counted[weights] = _layer(a, p, gpu, links, k, layer, weights)
        one = counted[weights]
        compute, tensor, context, expert = (
            compute + one[0], tensor + one[1], context + one[2], expert + one[3]
        )  # fmt: skip
    if stage == p.pipeline - 1:
        compute += _output(a, p, gpu, k, vocab_rows)
    return _Microbatch(compute, tensor, context, expert)


def _layer(
    a: Architecture, p: Layout, gpu: Gpu, links: _Links, k: act.Tokens, layer: int, weights: LayerParameters
) -> tuple[float, float, float, float]:
    """Return compute and exposed tensor, context and expert communication of one layer, forward and backward."""
    precision = "fp8" if p.fp8 else p.precision
    speed = peak(gpu, precision) * MATRIX_SHARE[precision]
    has_experts = weights.experts > 0
    dense = weights.total - weights.experts - weights.norms
    matrix = (
        6.0 * dense * k.tokens / p.tensor / (speed * _fill(k.tokens, a.hidden_size, a.hidden_size / p.tensor))
    )
    if has_experts:
        sent = act.dispatched_tokens(a, k)
        rows = sent / max(1.0, (a.num_moe_experts or 1) / p.expert)
        width = (a.moe_ffn_hidden_size or 1) / p.expert_tensor
        flops = 6.0 * weights.active_experts / max(1, a.moe_router_topk) * sent / p.expert_tensor
        matrix += flops / (speed * EXPERT_SHARE * _fill(rows, a.moe_latent_size or a.hidden_size, width))
    attention = _attention(a.of_layer(layer), p, gpu, k) if weights.attention else 0.0
    traffic = act.layer_bytes(a, layer, k) * TRAFFIC_PASSES[precision] / (gpu.memory_bandwidth * MEMORY_SHARE)
    compute = max(matrix + attention + traffic, LAUNCH_S["experts" if has_experts else "dense"])
    tensor = _tensor(a, p, links, k, matrix, has_experts)
    context = _context(a, p, links, k, attention) if weights.attention else 0.0
    expert = _experts(a, p, links, k) if has_experts else 0.0
    return compute, tensor, context, expert


def _fill(*sizes: float) -> float:
    """Return the share of its best speed that a matrix product reaches at these sizes."""
    share = 1.0
    for size in sizes:
        share *= size / (size + HALF_SIZE)
    return max(share, 0.02)


def _attention(a: Architecture, p: Layout, gpu: Gpu, k: act.Tokens) -> float:
    """Return the seconds of scores and weighted sums: 3.5 forward passes, since backward repeats the forward pass."""
    window = a.window_size[0] if isinstance(a.window_size, tuple) else a.window_size
    if k.scores and k.window_scores and a.global_kv_channels:
        window = None  # computed with all keys, and masked
    keys = min(p.seq_length / (1 if p.both_sides else 2), window or p.seq_length)
    width = a.num_attention_heads * a.kv_channels
    if a.multi_latent_attention:
        width = a.num_attention_heads * (a.known("qk_head_dim") + a.known("v_head_dim"))
    flops = 3.5 * 4.0 * width / p.tensor * keys * k.tokens
    return flops / (peak(gpu, "bf16" if p.precision != "fp32" else "fp32") * ATTENTION_SHARE)


def _tensor(
    a: Architecture, p: Layout, links: _Links, k: act.Tokens, matrix: float, has_experts: bool
) -> float:
    """Return exposed gathers and scatters of the residual: two pairs forward; two pairs and a gather backward."""
    if p.tensor == 1:
        return 0.0
    passes = (10 if p.sequence_parallel else 8) / (2 if has_experts else 1)
    volume = k.tokens * a.hidden_size * p.parameter_bytes * (p.tensor - 1) / p.tensor
    seconds = passes * volume / links.bandwidth(1, p.tensor)
    return seconds * (1 - HIDDEN_TENSOR_SHARE)


def _context(a: Architecture, p: Layout, links: _Links, k: act.Tokens, attention: float) -> float:
    """Return exposed ring exchange of keys and values, once forward and twice backward, overlapping attention."""
    if p.context == 1:
        return 0.0
    width = 2 * a.num_query_groups * a.kv_channels / p.tensor
    seconds = (
        3 * (p.context - 1) * k.tokens * width * p.parameter_bytes / links.bandwidth(p.tensor, p.context)
    )
    return max(0.1 * seconds, seconds - 0.8 * attention) + (p.context - 1) * SENDING_S


def _experts(a: Architecture, p: Layout, links: _Links, k: act.Tokens) -> float:
    """Return the seconds to send tokens to their experts and back, forward and backward."""
    group = p.expert * p.expert_tensor
    if group == 1:
        return 0.0
    width = a.moe_latent_size or a.hidden_size
    sent = k.tokens / p.tensor * a.moe_router_topk * width * p.parameter_bytes
    return 4 * links.exchange(group, a.moe_router_topk, sent) + 8 * SENDING_S


def _output(a: Architecture, p: Layout, gpu: Gpu, k: act.Tokens, vocab_rows: int) -> float:
    """Return the seconds of logits and loss, in bf16."""
    speed = peak(gpu, "bf16") * MATRIX_SHARE["bf16"]
    flops = 6.0 * a.hidden_size * vocab_rows / p.tensor * k.tokens
    passes = 10 * k.tokens * vocab_rows / p.tensor * 2
    return flops / speed + passes / (gpu.memory_bandwidth * MEMORY_SHARE)


def _data(p: Layout, links: _Links, weights: int, microbatch: float) -> float:
    """Return the seconds of scattering gradients and gathering weights that a microbatch does not hide.

    Between copies of the optimizer, each rank's share of the gradients is also reduced in a ring.
    """
    if p.data * p.context == 1:
        return 0.0
    ranks, copies = (
        (p.optimizer_shards, p.optimizer_instances) if not p.fsdp_shard else (p.data * p.context, 1)
    )
    size = weights * (4 + (1 if p.fp8 else 2)) * (ranks - 1) / ranks
    seconds = size / links.bandwidth(p.tensor, ranks)
    share = weights * 4 / ranks
    seconds += 2 * share * (copies - 1) / copies / links.bandwidth(p.tensor * ranks, copies)
    if p.fsdp_shard:
        seconds *= p.num_microbatches
        return max(0.05 * seconds, seconds - HIDDEN_DATA_SHARE * microbatch * p.num_microbatches)
    return max(0.05 * seconds, seconds - HIDDEN_DATA_SHARE * microbatch)


def _optimizer(p: Layout, gpu: Gpu, weights: int) -> float:
    """Return the seconds of Adam's memory traffic: 4 fp32 values read, 3 written, and a weight."""
    own = weights / (p.optimizer_shards if p.distributed_optimizer else 1)
    return own * 30 / (gpu.memory_bandwidth * MEMORY_SHARE) + 5e-3


def model_share(
    architecture: Architecture, layout: Layout, gpu: Gpu, vocab_rows: int, seconds: float
) -> float:
    """Return the model FLOPs utilization of a step, by the full convention."""
    flops = flops_of(architecture, vocab_rows, layout).full
    tokens = layout.global_batch_size * layout.seq_length
    top = peak(gpu, "fp8" if layout.fp8 else layout.precision)
    return flops * tokens / seconds / layout.world_size / top
