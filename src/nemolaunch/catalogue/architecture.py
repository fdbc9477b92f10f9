"""The shape of a model, from which parameter counts, FLOPs, memory and divisibility rules are computed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a model. Field names are those of NeMo's model configs, so values can be set there.

    Values that NeMo derives while building (`kv_channels`, `num_query_groups`, `ffn_hidden_size`,
    `moe_ffn_hidden_size`) are already filled in. `None` means that the model has no such part.

    Kind:
        kind: Megatron's model type: gpt, mamba, hyena, bert or t5. Not a config field.
        post_layer_norms: additional norms after attention and MLP (Gemma 2 to 4); with experts (Gemma 4) also before
            and after the experts and the shared expert, and scales in the router. Not a config field.

    Size (counts, widths in channels, `seq_length` in tokens):
        num_layers: transformer layers; for Mamba hybrids and Hyena the letters of `hybrid_override_pattern`;
            for T5 the decoder layers.
        hidden_size: width of the residual stream.
        num_attention_heads, num_query_groups: query heads; key/value heads.
        kv_channels: channels per head.
        ffn_hidden_size: hidden width of a dense MLP (per branch if it is gated).
        seq_length: sequence length the model config is built for.
        vocab_size: a preset vocabulary, already padded; `None`: the tokenizer's, padded when building.
        make_vocab_size_divisible_by: padding unit of the vocabulary for one tensor parallel rank.

    Attention windows and positions:
        rotary_base: one number, or two if local and global layers differ (Gemma 3).
        rotary_percent: share of each head's channels that is rotated.
        scale_factor, low_freq_factor, high_freq_factor, old_context_len: Llama 3.1's rope scaling.
        rope_scaling, rope_scaling_factor: switch and factor of the rope scaling of Llama 4 and Gemma 3.
        window_size: sliding window in tokens, `(left, right)` or one number.
        interleaved_attn_pattern: numbers of consecutive layers with and without a window, alternating.

    Gemma 4, whose layers differ:
        global_kv_channels, num_global_query_groups: channels per head, and key/value heads, of layers without a window;
            the latter None: as many as in the others.
        num_kv_shared_layers: last layers that attend to the keys and values of an earlier one.
        use_double_wide_mlp: whether the MLPs of those layers are twice as wide.
        per_layer_embed_dim, per_layer_embed_vocab_size: width, for each layer, and rows of a second embedding, which
            each layer adds to the residual stream through a gate.

    Experts:
        moe_layer_freq: 1: every layer has experts; n: every n-th; a tuple of 0 and 1: one entry per layer.
        moe_shared_expert_intermediate_size: hidden width of the shared expert.
        moe_latent_size: width in which the routed experts work, between two projections (Nemotron 3 Super).
        moe_router_pre_softmax: softmax over all experts before the selection, not over the selected ones after it.
        mtp_num_layers: additional layers that predict further tokens (DeepSeek V3).

    Multi-latent attention (DeepSeek): ranks and head widths in channels.

    Gated delta nets (Qwen3-Next), the linear attention of all layers but each `linear_attention_freq`-th:
        linear_conv_kernel_dim: width of their convolution; the others are counts of heads, and channels of one.
        attention_output_gate: the other layers gate the output of each head by a second projection of the queries.
        moe_shared_expert_gate: the shared expert has a gate of its own.

    Mamba and Hyena:
        hybrid_override_pattern: one letter per layer. Mamba hybrids: M Mamba-2, * attention, - MLP, E experts.
            Hyena: S short, D medium, H long convolution, * attention.
    """

    kind: str = "gpt"
    post_layer_norms: bool = False

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    kv_channels: int
    ffn_hidden_size: int
    seq_length: int
    vocab_size: int | None = None
    make_vocab_size_divisible_by: int = 128

    gated_linear_unit: bool = False
    activation_func: str = "gelu"
    bias_activation_fusion: bool = False
    normalization: str = "LayerNorm"
    layernorm_epsilon: float = 1e-5
    layernorm_zero_centered_gamma: bool = False
    add_bias_linear: bool = False
    add_qkv_bias: bool = False
    qk_layernorm: bool = False
    share_embeddings_and_output_weights: bool = False
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    init_method_std: float = 0.02

    position_embedding_type: str = "rope"
    rotary_base: float | tuple[float, ...] = 10000.0
    rotary_percent: float = 1.0
    rotary_interleaved: bool = False
    seq_len_interpolation_factor: float | None = None
    apply_rope_fusion: bool = False
    scale_factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    old_context_len: int | None = None
    rope_scaling: bool | None = None
    rope_scaling_factor: float | None = None
    window_size: int | tuple[int, ...] | None = None
    interleaved_attn_pattern: tuple[int, ...] | None = None
    global_kv_channels: int | None = None
    num_global_query_groups: int | None = None
    num_kv_shared_layers: int | None = None
    use_double_wide_mlp: bool = False
    per_layer_embed_dim: int | None = None
    per_layer_embed_vocab_size: int | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None

    num_moe_experts: int | None = None
    moe_router_topk: int = 2
    moe_ffn_hidden_size: int | None = None
    moe_shared_expert_intermediate_size: int | None = None
    moe_latent_size: int | None = None
    moe_layer_freq: int | tuple[int, ...] = 1
    moe_grouped_gemm: bool = False
    moe_token_dispatcher_type: str = "allgather"
    moe_router_enable_expert_bias: bool = False
    moe_router_score_function: str = "softmax"
    moe_router_pre_softmax: bool = False
    mtp_num_layers: int | None = None

    multi_latent_attention: bool = False
    q_lora_rank: int | None = None
    kv_lora_rank: int | None = None
    qk_head_dim: int | None = None
    qk_pos_emb_head_dim: int | None = None
    v_head_dim: int | None = None

    attention_output_gate: bool = False
    moe_shared_expert_gate: bool = False
    linear_attention_freq: int | None = None
    linear_conv_kernel_dim: int | None = None
    linear_key_head_dim: int | None = None
    linear_value_head_dim: int | None = None
    linear_num_key_heads: int | None = None
    linear_num_value_heads: int | None = None

    hybrid_override_pattern: str | None = None
    mamba_state_dim: int = 128
    mamba_head_dim: int = 64
    mamba_num_groups: int = 8
    mamba_num_heads: int | None = None
    num_groups_hyena: int | None = None
    num_groups_hyena_medium: int | None = None
    num_groups_hyena_short: int | None = None

    encoder_num_layers: int | None = None

    num_layers_in_first_pipeline_stage: int | None = None
    num_layers_in_last_pipeline_stage: int | None = None
    account_for_embedding_in_pipeline_split: bool = False
    account_for_loss_in_pipeline_split: bool = False

    def known(self, field: str) -> int:
        """Return a count that this kind of model must have; raise ValueError if it is `None`."""
        value = getattr(self, field)
        if value is None:
            raise ValueError(f"the architecture has no {field}")
        return int(value)

    def is_moe_layer(self, layer: int) -> bool:
        """Return whether layer `layer` (starting at 0) has experts instead of a dense MLP."""
        if self.num_moe_experts is None:
            return False
        if self.hybrid_override_pattern:
            return self.hybrid_override_pattern[layer] == "E"
        if isinstance(self.moe_layer_freq, tuple):
            return bool(self.moe_layer_freq[layer])
        return layer % self.moe_layer_freq == 0

    def has_window(self, layer: int) -> bool:
        """Return whether layer `layer` (starting at 0) attends through the sliding window."""
        if self.window_size is None or not self.interleaved_attn_pattern:
            return self.window_size is not None
        local, everywhere = self.interleaved_attn_pattern
        return layer % (local + everywhere) < local

    def shares_keys(self, layer: int) -> bool:
        """Return whether layer `layer` (starting at 0) attends to the keys and values of an earlier one (Gemma 4)."""
        return layer >= self.num_layers - (self.num_kv_shared_layers or 0)

    @property
    def has_preset_vocabulary(self) -> bool:
        """Whether a model of another tokenizer keeps the rows of the embedding, because other sizes depend on them.

        NeMo cannot build Gemma 3 without; the second embedding of Gemma 4 has as many.
        """
        return isinstance(self.rotary_base, tuple) or self.per_layer_embed_vocab_size is not None

    def of_layer(self, layer: int) -> Architecture:
        """Return the architecture whose layers all have the heads, window and width of layer `layer` (from 0).

        Only those of Gemma 4 differ in these.
        """
        if self.global_kv_channels is None:
            return self
        return _like(self, self.has_window(layer), self.use_double_wide_mlp and self.shares_keys(layer))

    def is_linear_layer(self, layer: int) -> bool:
        """Return whether layer `layer` (starting at 0) has a gated delta net instead of attention."""
        return self.linear_attention_freq is not None and (layer + 1) % self.linear_attention_freq != 0

    @property
    def num_moe_layers(self) -> int:
        """Number of layers with experts."""
        return sum(self.is_moe_layer(layer) for layer in range(self.num_layers))


@functools.lru_cache(maxsize=256)
def _like(a: Architecture, has_window: bool, is_wide: bool) -> Architecture:
    width = a.ffn_hidden_size * (2 if is_wide else 1)
    a = replace(a, ffn_hidden_size=width, use_double_wide_mlp=False, interleaved_attn_pattern=None)
    if has_window:
        return a
    groups = a.num_global_query_groups or a.num_query_groups
    return replace(a, kv_channels=a.known("global_kv_channels"), num_query_groups=groups, window_size=None)
