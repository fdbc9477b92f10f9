"""The weight tensors on one rank: sizes in Megatron's order, after tensor and expert parallel splits.

`arithmetic.parameters` counts a whole model; this module counts what a rank holds, where norms, routers and the biases
of row-parallel layers are replicated. Both are tested against models that NeMo builds.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nemolaunch.arithmetic import mixers
from nemolaunch.arithmetic.parameters import num_norms
from nemolaunch.catalogue import Architecture
from nemolaunch.estimate.layout import Layout, stage_layers


@dataclass(frozen=True)
class LocalTensor:
    """A parameter tensor on one rank.

    Attributes:
        numel: number of elements on this rank.
        expert: whether it belongs to experts, which have a different data parallel group.
        matrix: whether Transformer Engine multiplies with it, so that fp8 training keeps it in fp8.
        shared_embedding: whether it is one of the two copies of a tied embedding, which gets its own gradient bucket.
    """

    numel: int
    expert: bool = False
    matrix: bool = False
    shared_embedding: bool = False


@dataclass(frozen=True)
class Shards:
    """Numbers of ranks over which a layer's tensors are split."""

    tensor: int = 1
    expert: int = 1
    expert_tensor: int = 1


def chunk_tensors(
    architecture: Architecture, layout: Layout, stage: int, vocab_rows: int
) -> tuple[tuple[LocalTensor, ...], ...]:
    """Return the tensors of each model chunk (virtual stage) of a pipeline stage, in `named_parameters` order."""
    shards = Shards(layout.tensor, layout.expert, layout.expert_tensor)
    out = []
    for before, layers, after in _chunks(architecture, layout, stage, vocab_rows):
        tensors = list(before)
        for layer in layers:
            tensors += layer_tensors(architecture, layer, shards)
        out.append((*tensors, *after))
    return tuple(out)


def _chunks(
    a: Architecture, layout: Layout, stage: int, vocab_rows: int
) -> Iterator[tuple[list[LocalTensor], tuple[int, ...], list[LocalTensor]]]:
    """Yield for each chunk of a stage the tensors before its decoder layers, these layers, and tensors after them."""
    shards = Shards(layout.tensor, layout.expert, layout.expert_tensor)
    chunks = stage_layers(a, layout, stage)
    for number, layers in enumerate(chunks):
        first = stage == 0 and number == 0
        last = stage == layout.pipeline - 1 and number == len(chunks) - 1
        before: list[LocalTensor] = []
        if first or (last and a.mtp_num_layers):
            before += _embedding(a, shards, vocab_rows, layout.pipeline)
        if first and a.encoder_num_layers:
            before += [t for _ in range(a.encoder_num_layers) for t in _encoder_layer(a, shards)]
        yield before, layers, _last(a, shards, vocab_rows, layout.pipeline) if last else []


def _embedding(a: Architecture, shards: Shards, vocab_rows: int, stages: int) -> list[LocalTensor]:
    tied = a.share_embeddings_and_output_weights and stages > 1
    tensors = [LocalTensor(-(-vocab_rows // shards.tensor) * a.hidden_size, shared_embedding=tied)]
    if a.position_embedding_type == "learned_absolute":
        tensors.append(LocalTensor(a.seq_length * a.hidden_size))
    return tensors


def _last(a: Architecture, shards: Shards, vocab_rows: int, stages: int) -> list[LocalTensor]:
    tensors = _norm(a, a.hidden_size) * (2 if a.kind == "t5" else 1)
    for _ in range(a.mtp_num_layers or 0):
        tensors += 3 * _norm(a, a.hidden_size)
        tensors += _matrix(2 * a.hidden_size, a.hidden_size, columns=shards.tensor)
        tensors += _attention(a, shards) + _feed_forward(a, shards, a.num_moe_experts is not None)
        tensors += 2 * _norm(a, a.hidden_size)
    if a.kind == "bert":
        tensors += _matrix(a.hidden_size, a.hidden_size, bias=a.hidden_size) + _norm(a, a.hidden_size)
    if not a.share_embeddings_and_output_weights or stages > 1:
        tensors.append(
            LocalTensor(
                -(-vocab_rows // shards.tensor) * a.hidden_size,
                shared_embedding=a.share_embeddings_and_output_weights,
            )
        )
    if a.kind in ("bert", "t5"):
        tensors.append(LocalTensor(-(-vocab_rows // shards.tensor)))
    if a.per_layer_embed_dim:
        rows, width = a.known("per_layer_embed_vocab_size"), a.num_layers * a.per_layer_embed_dim
        tensors += [LocalTensor(-(-rows // shards.tensor) * width)]
        tensors += _matrix(a.hidden_size, width, columns=shards.tensor) + _norm(a, a.per_layer_embed_dim)
    return tensors


def layer_tensors(a: Architecture, layer: int, shards: Shards) -> tuple[LocalTensor, ...]:
    """Return the tensors of decoder layer `layer` (starting at 0) on one rank."""
    return _tensors_of_kind(a.of_layer(layer), _kind(a, layer), shards)


def _kind(a: Architecture, layer: int) -> str:
    """Return what determines a layer's tensors: its letter in the pattern, or its attention and its experts."""
    if a.hybrid_override_pattern:
        return a.hybrid_override_pattern[layer]
    return ("linear " if a.is_linear_layer(layer) else "") + ("experts" if a.is_moe_layer(layer) else "dense")


@functools.lru_cache(maxsize=1024)
def _tensors_of_kind(a: Architecture, kind: str, shards: Shards) -> tuple[LocalTensor, ...]:
    if a.hybrid_override_pattern:
        return tuple(_mixed_layer(a, kind, shards))
    norms = _norm(a, a.hidden_size) * num_norms(a, kind.endswith("experts"))
    mixing = _delta_net(a, shards) if kind.startswith("linear") else _attention(a, shards)
    cross = _cross_attention(a, shards) if a.kind == "t5" else []
    own = a.per_layer_embed_dim  # not split
    embedding = _matrix(a.hidden_size, own) + _matrix(own, a.hidden_size) if own else []
    return tuple(mixing + cross + norms + _feed_forward(a, shards, kind.endswith("experts")) + embedding)


@functools.lru_cache(maxsize=1024)
def _elements_of_kind(a: Architecture, kind: str, shards: Shards) -> tuple[int, int]:
    return _summed(_tensors_of_kind(a, kind, shards))


def _summed(tensors: Iterable[LocalTensor]) -> tuple[int, int]:
    """Return the elements of ordinary tensors and of expert tensors."""
    ordinary = experts = 0
    for t in tensors:
        if t.expert:
            experts += t.numel
        else:
            ordinary += t.numel
    return ordinary, experts


def _mixed_layer(a: Architecture, letter: str, shards: Shards) -> list[LocalTensor]:
    norm = _norm(a, a.hidden_size)
    if a.kind == "hyena":
        biased_attention = [*_attention(a, shards), LocalTensor(a.hidden_size)]
        mixer = biased_attention if letter == "*" else _hyena(a, letter, shards)
        return mixer + 2 * norm + _mlp(a, a.ffn_hidden_size, shards.tensor)
    if letter == "M":
        return norm + _mamba(a, shards)
    if letter == "*":
        return norm + _attention(a, shards)
    return norm + _feed_forward(a, shards, letter == "E")


def _encoder_layer(a: Architecture, shards: Shards) -> list[LocalTensor]:
    return _attention(a, shards) + 2 * _norm(a, a.hidden_size) + _mlp(a, a.ffn_hidden_size, shards.tensor)


def _norm(a: Architecture, width: int) -> list[LocalTensor]:
    return [LocalTensor(width)] * (2 if a.normalization == "LayerNorm" else 1)


def _matrix(
    inputs: int, outputs: int, *, columns: int = 1, rows: int = 1, bias: int = 0
) -> list[LocalTensor]:
    """Return a linear layer split by columns (outputs) or rows (inputs); `bias`: elements on this rank."""
    weight = LocalTensor(-(-inputs // rows) * -(-outputs // columns), matrix=True)
    return [weight, LocalTensor(bias)] if bias else [weight]


def _attention(a: Architecture, shards: Shards) -> list[LocalTensor]:
    if a.multi_latent_attention:
        return _latent_attention(a, shards)
    h, t = a.hidden_size, shards.tensor
    query = a.num_attention_heads * a.kv_channels
    both = (2 if a.attention_output_gate else 1) * query + 2 * a.num_query_groups * a.kv_channels
    tensors = _matrix(query, h, rows=t, bias=h if a.add_bias_linear else 0)
    tensors += _matrix(h, both, columns=t, bias=both // t if a.add_bias_linear or a.add_qkv_bias else 0)
    return tensors + (2 * _norm(a, a.kv_channels) if a.qk_layernorm else [])


def _cross_attention(a: Architecture, shards: Shards) -> list[LocalTensor]:
    h, t = a.hidden_size, shards.tensor
    width = a.num_attention_heads * a.kv_channels
    tensors = _matrix(width, h, rows=t, bias=h if a.add_bias_linear else 0)
    tensors += _matrix(h, width, columns=t, bias=width // t if a.add_bias_linear else 0)
    return tensors + _matrix(h, 2 * width, columns=t, bias=2 * width // t if a.add_bias_linear else 0)


def _latent_attention(a: Architecture, shards: Shards) -> list[LocalTensor]:
    """Return DeepSeek's latent attention: down projections are replicated, up projections are split."""
    h, t, heads = a.hidden_size, shards.tensor, a.num_attention_heads
    widths = (a.kv_lora_rank, a.qk_head_dim, a.qk_pos_emb_head_dim, a.v_head_dim)
    kv_rank, head, rotated, value_head = (width or 0 for width in widths)
    query, value = heads * (head + rotated), heads * value_head
    tensors = _matrix(value, h, rows=t, bias=h if a.add_bias_linear else 0)
    if a.q_lora_rank:
        tensors += _matrix(h, a.q_lora_rank) + _matrix(a.q_lora_rank, query, columns=t)
    else:
        tensors += _matrix(h, query, columns=t)
    tensors += _matrix(h, kv_rank + rotated)
    tensors += _matrix(kv_rank, heads * head + value, columns=t)
    if a.qk_layernorm:
        tensors += _norm(a, kv_rank) + (_norm(a, a.q_lora_rank) if a.q_lora_rank else [])
    return tensors


def _mlp(a: Architecture, width: int, split: int, outside: int | None = None) -> list[LocalTensor]:
    both, outside = (2 if a.gated_linear_unit else 1) * width, outside or a.hidden_size
    biased = a.add_bias_linear
    return _matrix(outside, both, columns=split, bias=both // split if biased else 0) + _matrix(
        width, outside, rows=split, bias=outside if biased else 0
    )


def _feed_forward(a: Architecture, shards: Shards, has_experts: bool) -> list[LocalTensor]:
    if not has_experts:
        return _mlp(a, a.ffn_hidden_size, shards.tensor)
    assert a.num_moe_experts
    assert a.moe_ffn_hidden_size
    one = _mlp(a, a.moe_ffn_hidden_size, shards.expert_tensor, a.moe_latent_size)
    local = -(-a.num_moe_experts // shards.expert)
    tensors = [LocalTensor(a.hidden_size * a.num_moe_experts)]
    tensors += [LocalTensor(a.num_moe_experts), LocalTensor(a.hidden_size)] if a.post_layer_norms else []
    if a.moe_latent_size:
        tensors += _matrix(a.hidden_size, a.moe_latent_size) + _matrix(a.moe_latent_size, a.hidden_size)
    # grouped experts are ordered by layer: the first matrix of every expert, then the second
    tensors += [LocalTensor(t.numel, expert=True, matrix=t.matrix) for t in one for _ in range(local)]
    if a.moe_shared_expert_intermediate_size:
        tensors += _mlp(a, a.moe_shared_expert_intermediate_size, shards.tensor)
        tensors += [LocalTensor(a.hidden_size)] if a.moe_shared_expert_gate else []
    return tensors


def _mamba(a: Architecture, shards: Shards) -> list[LocalTensor]:
    h, t = a.hidden_size, shards.tensor
    inner, heads = mixers.mamba_inner_width(a), mixers.mamba_heads(a)
    states = 2 * a.mamba_num_groups * a.mamba_state_dim
    convolved = (inner + states) // t
    width = (mixers.mamba(a) - _mamba_rest(a, inner, heads, states)) // (inner + states)
    tensors = [LocalTensor(heads // t)] * 3
    tensors += _matrix(h, 2 * inner + states + heads, columns=t)
    tensors += [LocalTensor(convolved * (width - 1)), LocalTensor(convolved), LocalTensor(inner // t)]
    return tensors + _matrix(inner, h, rows=t)


def _mamba_rest(a: Architecture, inner: int, heads: int, states: int) -> int:
    """Return the elements of a Mamba-2 layer without its convolution."""
    return a.hidden_size * (2 * inner + states + heads) + 3 * heads + inner + inner * a.hidden_size


def _delta_net(a: Architecture, shards: Shards) -> list[LocalTensor]:
    h, t = a.hidden_size, shards.tensor
    keys, values = mixers.delta_widths(a)
    heads = a.known("linear_num_value_heads")
    tensors = _matrix(h, 2 * keys + 2 * values + 2 * heads, columns=t)
    tensors += [LocalTensor((2 * keys + values) // t * a.known("linear_conv_kernel_dim"))]
    tensors += [LocalTensor(heads // t)] * 2 + [LocalTensor(a.known("linear_value_head_dim"))]
    return tensors + _matrix(values, h, rows=t)


def _hyena(a: Architecture, letter: str, shards: Shards) -> list[LocalTensor]:
    """Return a Hyena operator: filters are split like channels; the bias of the output projection is replicated."""
    split = mixers.hyena(a, letter) - a.hidden_size
    return [LocalTensor(-(-split // shards.tensor), matrix=True), LocalTensor(a.hidden_size)]


def local_parameters(architecture: Architecture, layout: Layout, stage: int, vocab_rows: int) -> int:
    """Return the number of parameters on a rank of this pipeline stage."""
    return sum(local_elements(architecture, layout, stage, vocab_rows))


def local_elements(
    architecture: Architecture, layout: Layout, stage: int, vocab_rows: int
) -> tuple[int, int]:
    """Return the numbers of ordinary and expert parameters on a rank of this stage."""
    counted = Layout(
        world_size=1,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        virtual=layout.virtual,
        expert=layout.expert,
        expert_tensor=layout.expert_tensor,
        recipe_pipeline=layout.recipe_pipeline,
    )
    return _elements(architecture, counted, stage, vocab_rows)


@functools.lru_cache(maxsize=4096)
def _elements(a: Architecture, layout: Layout, stage: int, vocab_rows: int) -> tuple[int, int]:
    shards = Shards(layout.tensor, layout.expert, layout.expert_tensor)
    ordinary = experts = 0
    for before, layers, after in _chunks(a, layout, stage, vocab_rows):
        kinds = Counter((a.of_layer(layer), _kind(a, layer)) for layer in layers)
        parts = [(1, _summed([*before, *after]))]
        parts += [(count, _elements_of_kind(*kind, shards)) for kind, count in kinds.items()]
        ordinary += sum(count * part[0] for count, part in parts)
        experts += sum(count * part[1] for count, part in parts)
    return ordinary, experts
