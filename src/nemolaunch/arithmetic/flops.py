"""Floating point operations of training, per token."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from nemolaunch.arithmetic import mixers
from nemolaunch.arithmetic.parameters import Parameters, parameters
from nemolaunch.catalogue import Architecture


@dataclass(frozen=True, kw_only=True)
class FlopsPerToken:
    """FLOPs of one token's forward and backward pass, by the two conventions in use.

    Attributes:
        full: counts every token as attending to the whole sequence, as NeMo reports up to 25.07.
        causal: counts it as attending to half of the sequence on average, as Megatron-Bridge reports from 25.09;
            equal to `full` if attention is not causal.
    """

    full: float
    causal: float


def _score_width(a: Architecture) -> int:
    """Return the channels of all heads in scores (queries times keys) plus sums (scores times values)."""
    if a.multi_latent_attention:
        head = a.known("qk_head_dim") + a.known("qk_pos_emb_head_dim") + a.known("v_head_dim")
        return a.num_attention_heads * head
    return 2 * a.num_attention_heads * a.kv_channels


def _window(a: Architecture) -> int | None:
    if isinstance(a.window_size, tuple):
        return a.window_size[0]
    return a.window_size


def _attended(a: Architecture, seq_length: int) -> tuple[float, float]:
    """Return the keys per token, summed over attention layers: in the full square, and causally on average."""
    if a.hybrid_override_pattern:
        layers = a.hybrid_override_pattern.count("*")
    else:
        layers = a.num_layers - _linear_layers(a) + (a.mtp_num_layers or 0)
    window = _window(a)
    if window is None or window >= seq_length:
        return layers * seq_length, layers * seq_length / 2
    local = layers
    if a.interleaved_attn_pattern:
        local_share, global_share = a.interleaved_attn_pattern
        local = layers - layers // (local_share + global_share) * global_share
    causal_in_window = window - window * window / (2 * seq_length)
    full = local * window + (layers - local) * seq_length
    return full, local * causal_in_window + (layers - local) * seq_length / 2


def _scores(a: Architecture, seq_length: int) -> tuple[float, float]:
    """Return keys per token times channels, summed over attention layers, by both conventions."""
    kinds = Counter(a.of_layer(layer) for layer in range(a.num_layers)) if a.global_kv_channels else {a: 1}
    full = causal = 0.0
    for kind, count in kinds.items():
        one = replace(kind, num_layers=count) if a.global_kv_channels else kind
        full_keys, causal_keys = _attended(one, seq_length)
        full += _score_width(kind) * full_keys
        causal += _score_width(kind) * causal_keys
    return full, causal


def _linear_layers(a: Architecture) -> int:
    return sum(a.is_linear_layer(layer) for layer in range(a.num_layers))


def _scan(a: Architecture) -> float:
    """Return forward FLOPs of the recurrences, as Megatron counts them.

    Mamba-2: 7 per channel and state; gated delta nets: 8 per value and channel of a key.
    """
    if a.linear_attention_freq:
        states = mixers.delta_widths(a)[1] * a.known("linear_key_head_dim")
        return _linear_layers(a) * 8.0 * states
    letters = (a.hybrid_override_pattern or "").count("M") if a.kind == "mamba" else 0
    return letters * 7.0 * mixers.mamba_inner_width(a) * a.mamba_state_dim


def _weights_used(a: Architecture, counts: Parameters) -> int:
    """Return the weights that multiply a token: active ones without lookups, plus a tied output matrix."""
    tied = counts.output_matrix if a.share_embeddings_and_output_weights else 0
    tied += (a.mtp_num_layers or 0) * counts.output_matrix  # each additional token has its own logits
    return counts.active_non_embedding - counts.position_embedding + tied


def flops_per_token(
    architecture: Architecture, vocab_size: int, seq_length: int | None = None, *, both_sides: bool = False
) -> FlopsPerToken:
    """Return the FLOPs per token of a decoder, 6 N + 12 L h s and 6 N + 6 L h s.

    N is the number of active weights without the input embedding; L h s is heads times channels times keys over
    all attention layers. A product of a weight and an activation takes 2 FLOPs forward and 4 backward; scores and
    weighted sums take 4 h s forward (Narayanan et al. 2021, arXiv 2104.04473; Chowdhery et al. 2022, arXiv
    2204.02311, appendix B). For Llama 3 8B at 8192 tokens: 57.9 and 51.5 GFLOP. Recomputation is not counted.
    Layers with a sliding window count only its width; Llama 4's chunked attention counts as full attention, and
    Hyena's convolutions are not counted.

    Args:
        architecture: the model.
        vocab_size: rows of the embedding.
        seq_length: tokens per sample; defaults to the architecture's.
        both_sides: tokens also attend to later tokens, so both conventions coincide.

    Raises:
        ValueError: for T5, whose encoder and decoder see different tokens.
    """
    a = architecture
    if a.kind == "t5":
        raise ValueError("FLOPs per token are not defined for an encoder-decoder model")
    full_keys, causal_keys = _scores(a, seq_length or a.seq_length)
    if both_sides or a.kind == "bert":
        causal_keys = full_keys
    rest = 6.0 * _weights_used(a, parameters(a, vocab_size)) + 3.0 * _scan(a)
    return FlopsPerToken(full=rest + 6.0 * full_keys, causal=rest + 6.0 * causal_keys)
