"""Bytes that a layer keeps from its forward pass for its backward pass, tensor by tensor.

Follows the accounting of Korthikanti et al. 2022 (arXiv 2205.05198), equations 1 to 4, for the layers that Megatron
builds today: attention scores only if kernels keep them (FlashAttention keeps one fp32 number per query and head),
grouped queries, gated and expert MLPs, latent attention, Mamba-2, no dropout masks if dropout is 0. For their GPT layer
(MLP of 4 h, as many key/value heads as query heads, dropout, biases) it gives their 34 s b h, minus what fused kernels
no longer keep.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from nemolaunch.arithmetic import mixers
from nemolaunch.catalogue import Architecture
from nemolaunch.estimate.layout import Layout

SCAN_CHUNK = 64  # positions that the scan on a CPU computes at once


@dataclass(frozen=True)
class Tokens:
    """The part of a layout that one layer's activations depend on.

    Attributes:
        tokens: tokens of a microbatch on this rank, after context parallelism.
        length: positions of a sequence on this rank.
        split: sequence parallel ranks over which the residual stream and norms are split.
        tensor, expert, expert_tensor: ranks over which matrices are split.
        width: bytes per value.
        input_width: bytes per value of a matrix product's saved input: 1 in fp8.
        scores: bytes of each value kept per token pair and head; empty with fused kernels such as FlashAttention.
        window_scores: whether layers with a window keep scores too.
        torch: plain PyTorch layers (CPU rehearsal), whose norms compute in fp32 and keep fp32 values.
        recompute: modules that are recomputed.
    """

    tokens: int
    length: int = 0
    split: int = 1
    tensor: int = 1
    expert: int = 1
    expert_tensor: int = 1
    width: int = 2
    input_width: int = 2
    scores: tuple[int, ...] = ()
    window_scores: bool = True
    torch: bool = False
    recompute: frozenset[str] = frozenset()

    @property
    def residual(self) -> float:
        """Tokens of the residual stream on this rank."""
        return self.tokens / self.split


def tokens_of(layout: Layout, *, torch: bool = False) -> Tokens:
    """Return the part of a layout that a layer's activations depend on."""
    selective = layout.recompute_granularity == "selective"
    scores = layout.scores if layout.own_scores or not torch else ()
    return Tokens(
        tokens=layout.tokens,
        length=layout.tokens // layout.micro_batch_size,
        split=layout.sequence_shards,
        tensor=layout.tensor,
        expert=layout.expert,
        expert_tensor=layout.expert_tensor,
        width=layout.parameter_bytes,
        input_width=1 if layout.fp8 else layout.parameter_bytes,
        scores=scores,
        window_scores=layout.window_scores,
        torch=torch,
        recompute=frozenset(layout.recompute_modules) if selective else frozenset(),
    )


@functools.lru_cache(maxsize=4096)
def layer_bytes(a: Architecture, layer: int, k: Tokens) -> float:
    """Return the bytes that decoder layer `layer` (starting at 0) keeps per microbatch without full recompute."""
    a = a.of_layer(layer)
    if a.hybrid_override_pattern:
        letter = a.hybrid_override_pattern[layer]
        if a.kind == "hyena":
            return (_attention(a, k) if letter == "*" else _hyena(a, k)) + _mlp_block(a, k)
        if letter == "M":
            return _mamba(a, k)
        if letter == "*":
            return _attention(a, k)
        return _expert_block(a, k) if letter == "E" else _mlp_block(a, k)
    mixing = _delta_net(a, k) if a.is_linear_layer(layer) else _attention(a, k)
    cross = _attention(a, k) if a.kind == "t5" else 0.0
    own = _layer_embedding(a, k, a.per_layer_embed_dim) if a.per_layer_embed_dim else 0.0
    return mixing + cross + own + (_expert_block(a, k) if a.is_moe_layer(layer) else _mlp_block(a, k))


def prediction_bytes(a: Architecture, k: Tokens) -> float:
    """Return the bytes that a multi-token-prediction layer keeps: two norms, their joint projection, a layer."""
    inputs = 2 * _norm(a, k) + k.residual * 2 * a.hidden_size * k.input_width
    return inputs + _attention(a, k) + (_expert_block(a, k) if a.num_moe_experts else _mlp_block(a, k))


def checkpoint_bytes(a: Architecture, k: Tokens) -> float:
    """Return the bytes kept of a recomputed chunk of layers: its input."""
    return k.residual * a.hidden_size * k.width


def _norm(a: Architecture, k: Tokens) -> float:
    """Return the bytes of a norm: its input and fp32 statistics; two fp32 copies for plain PyTorch's RMSNorm."""
    statistics = 4 * (2 if a.normalization == "LayerNorm" else 1)
    width = k.width
    if a.global_kv_channels:  # Gemma 4's own: two fp32 copies of a 16-bit input, and the normalised value
        width = 8 if k.width == 4 else 12
    elif k.torch:
        width = 4 if a.normalization == "LayerNorm" else 8
    return k.residual * (a.hidden_size * width + statistics)


def _normed_input(a: Architecture, k: Tokens) -> float:
    """Return the bytes of a norm and its output, which the next matrix product keeps (its sequence shard)."""
    return _norm(a, k) + k.residual * a.hidden_size * k.input_width


def _dropout(a: Architecture, k: Tokens) -> float:
    """Return the bytes of the dropout mask: one per value if dropout is on."""
    return k.residual * a.hidden_size if a.hidden_dropout else 0.0


def _layer_embedding(a: Architecture, k: Tokens, width: int) -> float:
    """Return the bytes of a layer's own embedding: the gate's input and output, activated, multiplied, projected."""
    return k.residual * (a.hidden_size + 4 * width) * k.width + _norm(a, k)


def _attention(a: Architecture, k: Tokens) -> float:
    if a.multi_latent_attention:
        return _latent_attention(a, k)
    if a.window_size is not None and not k.window_scores:
        k = replace(k, scores=())
    query = a.num_attention_heads * a.kv_channels / k.tensor
    key = a.num_query_groups * a.kv_channels / k.tensor
    kept = _normed_input(a, k)
    if k.scores:
        key = query  # keys and values are copied for each query head
    # queries and keys after rotary embedding, and values: contiguous copies for the attention kernel
    kept += k.tokens * (query + 2 * key) * k.width
    if k.torch and a.position_embedding_type == "rope":
        if not k.scores:
            kept += k.tokens * (query + key) * k.width  # values remain a view of the joint projection
        kept += k.length * 4 * a.kv_channels * a.rotary_percent * k.width  # cosines and sines for both
    kept += _core_attention(k, query, a.num_attention_heads / k.tensor)
    if a.attention_output_gate:  # the gate, and the gated output
        kept += k.tokens * query * 2 * k.width
    if a.post_layer_norms:
        kept += _norm(a, k)
    return kept + _dropout(a, k)


def _core_attention(k: Tokens, width: float, heads: float) -> float:
    """Return the bytes of attention outputs, kept twice (also by the projection), and statistics or scores."""
    statistics = sum(k.scores) * k.length * heads if k.scores else 4 * heads
    if "core_attn" in k.recompute:
        statistics = 0
    second_copy = k.input_width if k.input_width != k.width else 0
    return k.tokens * (width * (k.width + second_copy) + statistics)


def _latent_attention(a: Architecture, k: Tokens) -> float:
    ranks_known = (a.kv_lora_rank, a.qk_head_dim, a.qk_pos_emb_head_dim, a.v_head_dim)
    kv_rank, head, rotated, value_head = (width or 0 for width in ranks_known)
    heads = a.num_attention_heads / k.tensor
    query, value = heads * (head + rotated), heads * value_head
    ranks = kv_rank + rotated + (a.q_lora_rank or 0)
    kept = _normed_input(a, k)
    # the low-rank values before and after their norms
    kept += k.residual * (ranks * k.width + (kv_rank + (a.q_lora_rank or 0)) * k.input_width)
    if "mla_up_proj" not in k.recompute:
        # up-projected (keys and values together), and again after rotary embedding
        kept += k.tokens * (query + heads * head + value) * k.width
    kept += k.tokens * 2 * query * k.width
    return kept + _core_attention(k, value, heads) + _dropout(a, k)


def _gate(a: Architecture, k: Tokens) -> float:
    """Return the bytes that an activation function keeps per MLP channel, including its output."""
    if not a.gated_linear_unit:
        return k.width + k.input_width
    # without fusion, the product keeps the activated half and the other half, to which Megatron adds an offset
    unfused = 0 if a.bias_activation_fusion else 2 * k.width
    if a.activation_func == "openai_gelu":
        unfused += k.width
    return 2 * k.width + unfused + k.input_width


def _mlp_block(a: Architecture, k: Tokens) -> float:
    if "mlp" in k.recompute:
        return k.residual * a.hidden_size * k.width
    kept = _normed_input(a, k) + k.tokens * a.ffn_hidden_size / k.tensor * _gate(a, k)
    return kept + _dropout(a, k) + (_norm(a, k) if a.post_layer_norms else 0.0)


def _expert_block(a: Architecture, k: Tokens) -> float:
    """Return the bytes of router, dispatched tokens (evenly balanced), experts and shared expert."""
    assert a.num_moe_experts
    assert a.moe_ffn_hidden_size
    kept = _norm(a, k)
    if "moe" in k.recompute:
        return kept + k.residual * a.hidden_size * k.width
    if "layernorm" not in k.recompute:
        kept += k.residual * a.hidden_size * k.width
    # fp32 scores of all experts and of the selected ones, their weights, a mask, and int64 indices
    kept += k.residual * (a.num_moe_experts * (4 + k.width + 1) + a.moe_router_topk * 32)
    sent = dispatched_tokens(a, k)
    width = a.moe_ffn_hidden_size / k.expert_tensor
    kept += sent * (a.moe_latent_size or a.hidden_size) * k.input_width
    kept += k.residual * (a.moe_latent_size or 0) * (k.width + k.input_width)  # before and after the experts
    gate = _gate(a, k) - (k.input_width if "moe_act" in k.recompute else 0)
    kept += sent * width * gate
    if a.moe_shared_expert_intermediate_size and "shared_experts" not in k.recompute:
        kept += k.tokens * a.moe_shared_expert_intermediate_size / k.tensor * _gate(a, k)
    if (
        a.post_layer_norms
    ):  # inputs of router and shared expert, and norms after the experts, the latter, and both
        kept += 5 * _norm(a, k) + 2 * k.residual * a.hidden_size * k.width
    return kept + _dropout(a, k)


def dispatched_tokens(a: Architecture, k: Tokens) -> float:
    """Return the tokens that a rank's experts receive: each rank sends its own `topk` times to the whole group."""
    return k.tokens / k.tensor * a.moe_router_topk * k.expert_tensor


def _mamba(a: Architecture, k: Tokens) -> float:
    """Return the bytes of a Mamba-2 layer: its kernel keeps the input projection and recomputes the convolution.

    The scan in plain PyTorch (`nemolaunch.cpu.scan`) keeps what autograd needs: per position and head, three values for
    each position of its chunk, copies of B, C and the inputs, and the state once a chunk.
    """
    inner, heads = mixers.mamba_inner_width(a) / k.tensor, mixers.mamba_heads(a) / k.tensor
    states = 2 * a.mamba_num_groups * a.mamba_state_dim / k.tensor
    projected = 2 * inner + states + heads
    kept = projected * k.width + inner * (k.width + k.input_width)
    if k.torch:
        size, channels = a.mamba_state_dim, inner / heads
        kept += heads * 4 * (3 * SCAN_CHUNK + 4 * size + 2 * channels + channels * size / SCAN_CHUNK)
        kept += 4 * (
            3 * inner + 2 * states
        )  # in fp32: the convolution's result, its activation and the gate's
    return _normed_input(a, k) + k.tokens * kept


def _delta_net(a: Architecture, k: Tokens) -> float:
    """Return the bytes of a gated delta net: projections, convolved values, a query and a key per head of values.

    Queries and keys are normalised and copied for each head of values; the kernel keeps its inputs, decays in fp32 and
    its output, which is normalised and gated.
    """
    keys, values = (width / k.tensor for width in mixers.delta_widths(a))
    heads = a.known("linear_num_value_heads") / k.tensor
    copied = 2 * heads * a.known("linear_key_head_dim")
    projected = 2 * keys + 2 * values + 2 * heads
    kept = (
        (projected + 2 * keys + values + copied + 2 * values) * k.width
        + 2 * heads * 4
        + values * k.input_width
    )
    return _normed_input(a, k) + k.tokens * kept


def _hyena(a: Architecture, k: Tokens) -> float:
    """Return the bytes of a Hyena layer: three projections, convolved, gated, and convolved again in fp32."""
    width = a.hidden_size / k.tensor
    return _normed_input(a, k) + k.tokens * width * (3 * k.width + 3 * k.width + 2 * 4 + k.input_width)


def output_bytes(a: Architecture, k: Tokens, vocab_rows: int) -> float:
    """Return the bytes kept by the last norm and the loss: hidden states and fp32 probabilities."""
    hidden = _norm(a, k) + k.residual * a.hidden_size * k.width
    capped = k.width if a.final_logit_softcapping else 0
    return hidden + k.tokens * vocab_rows / k.tensor * (4 + capped)


def output_peak_bytes(a: Architecture, k: Tokens, vocab_rows: int) -> float:
    """Return the peak bytes of the loss: fp32 probabilities plus the logits or their gradient."""
    return output_bytes(a, k, vocab_rows) + k.tokens * vocab_rows / k.tensor * k.width


def layer_workspace_bytes(a: Architecture, layer: int, k: Tokens) -> float:
    """Return the bytes of gradients alive at once in a layer's backward pass: inside the MLP and three residuals.

    If scores are kept, the gradients of scores before and after softmax may be larger; recomputed scores are added.
    """
    a = a.of_layer(layer)
    if a.window_size is not None and not k.window_scores:
        k = replace(k, scores=())
    width = a.ffn_hidden_size / k.tensor
    tokens: float = k.tokens
    if a.is_moe_layer(layer):
        assert a.moe_ffn_hidden_size
        tokens, width = dispatched_tokens(a, k), a.moe_ffn_hidden_size / k.expert_tensor
    inside = tokens * width * (3 if a.gated_linear_unit else 2) * k.width
    most = inside + 3 * tokens * a.hidden_size * k.width
    if k.scores:
        again = sum(k.scores) if "core_attn" in k.recompute else 0
        of_each = 2 * max(k.scores) + again
        most = max(most, k.tokens * k.length * a.num_attention_heads / k.tensor * of_each)
    return most
