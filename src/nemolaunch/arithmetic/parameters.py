"""Parameter counts of a model by component and layer.

They count the modules that megatron.core builds from NeMo's configs; `tests/e2e` compares them with models built on
the meta device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from nemolaunch.arithmetic import mixers
from nemolaunch.catalogue import Architecture


@dataclass(frozen=True, kw_only=True)
class LayerParameters:
    """Parameters of one layer.

    Attributes:
        attention: query, key, value and output projections with their biases and head norms.
        mixer: Mamba or Hyena operator, or a gated delta net.
        mlp: dense MLP.
        router: weights that select experts.
        experts, active_experts: all experts; those that one token passes through.
        shared_experts: the expert that every token passes through.
        norms: norms of the residual stream.
        other: projections of a multi-token-prediction layer, to and from experts in a narrower space, and to and from a
            layer's own embedding.
    """

    attention: int = 0
    mixer: int = 0
    mlp: int = 0
    router: int = 0
    experts: int = 0
    active_experts: int = 0
    shared_experts: int = 0
    norms: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All parameters of the layer."""
        return sum(getattr(self, field.name) for field in fields(self)) - self.active_experts

    @property
    def active(self) -> int:
        """Parameters that one token passes through."""
        return self.total - self.experts + self.active_experts


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters of a whole model.

    Attributes:
        embedding: input token embedding.
        position_embedding: learned positions.
        output_layer: the output matrix and its bias; only the bias if the matrix is tied to the embedding.
        output_matrix: size of the output matrix, tied or not; not part of `total`.
        final_norm: norms after the last layer.
        head: BERT's additional transform before the output.
        layer_embedding: the second embedding, which has a part for each layer (Gemma 4).
        layer_projection: what makes the same parts of the first embedding, and their norm.
        layers: one entry per layer: encoder layers first, multi-token-prediction layers last.
    """

    embedding: int
    position_embedding: int = 0
    output_layer: int = 0
    output_matrix: int = 0
    final_norm: int = 0
    head: int = 0
    layer_embedding: int = 0
    layer_projection: int = 0
    layers: tuple[LayerParameters, ...]

    def _outside_layers(self) -> int:
        embeddings = self.embedding + self.position_embedding + self.layer_embedding
        return embeddings + self.layer_projection + self.output_layer + self.final_norm + self.head

    @property
    def total(self) -> int:
        """All parameters, each counted once."""
        return self._outside_layers() + sum(layer.total for layer in self.layers)

    @property
    def active(self) -> int:
        """Parameters that one token passes through."""
        return self._outside_layers() + sum(layer.active for layer in self.layers)

    @property
    def non_embedding(self) -> int:
        """All parameters except those that are looked up by the input token."""
        return self.total - self.embedding - self.layer_embedding

    @property
    def active_non_embedding(self) -> int:
        """`active` without those that are looked up by the input token."""
        return self.active - self.embedding - self.layer_embedding

    def component(self, name: str) -> int:
        """Sum one component over all layers, e.g. `component("attention")`."""
        return sum(getattr(layer, name) for layer in self.layers)


def _norm(a: Architecture, width: int) -> int:
    return width * (2 if a.normalization == "LayerNorm" else 1)


def _linear(inputs: int, outputs: int, bias: bool) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _mlp(a: Architecture, width: int, outside: int | None = None) -> int:
    """Count an MLP of a hidden width; `outside`: its width outside, if that is not the residual stream's."""
    branches, outside = 2 if a.gated_linear_unit else 1, outside or a.hidden_size
    return _linear(outside, branches * width, a.add_bias_linear) + _linear(width, outside, a.add_bias_linear)


def _latent_attention(a: Architecture) -> int:
    """Count DeepSeek's latent attention: queries and keys/values pass low-rank projections with norms between."""
    key_value_rank, position_width = a.known("kv_lora_rank"), a.known("qk_pos_emb_head_dim")
    head_width = a.known("qk_head_dim")
    query_width = a.num_attention_heads * (head_width + position_width)
    value_width = a.num_attention_heads * a.known("v_head_dim")
    if a.q_lora_rank:
        query = a.hidden_size * a.q_lora_rank + a.q_lora_rank * query_width
    else:
        query = a.hidden_size * query_width
    down = a.hidden_size * (key_value_rank + position_width)
    up = key_value_rank * (a.num_attention_heads * head_width + value_width)
    norms = _norm(a, key_value_rank + (a.q_lora_rank or 0)) if a.qk_layernorm else 0
    return query + down + up + norms + _linear(value_width, a.hidden_size, a.add_bias_linear)


def _attention(a: Architecture) -> int:
    if a.multi_latent_attention:
        return _latent_attention(a)
    query_width = a.num_attention_heads * a.kv_channels
    key_value_width = 2 * a.num_query_groups * a.kv_channels
    projected = (2 if a.attention_output_gate else 1) * query_width + key_value_width
    count = _linear(a.hidden_size, projected, a.add_bias_linear or a.add_qkv_bias)
    count += _linear(query_width, a.hidden_size, a.add_bias_linear)
    if a.qk_layernorm:
        count += 2 * _norm(a, a.kv_channels)
    return count


def _cross_attention(a: Architecture) -> int:
    width = a.num_attention_heads * a.kv_channels
    count = _linear(a.hidden_size, width, a.add_bias_linear) + _linear(
        a.hidden_size, 2 * width, a.add_bias_linear
    )
    return count + _linear(width, a.hidden_size, a.add_bias_linear)


def _feed_forward(a: Architecture, has_experts: bool) -> dict[str, int]:
    if not has_experts:
        return {"mlp": _mlp(a, a.ffn_hidden_size)}
    expert = _mlp(a, a.known("moe_ffn_hidden_size"), a.moe_latent_size)
    num_experts, shared = a.known("num_moe_experts"), a.moe_shared_expert_intermediate_size
    return {
        "router": _linear(a.hidden_size, num_experts, a.add_bias_linear)
        + (a.hidden_size + num_experts if a.post_layer_norms else 0),
        "experts": num_experts * expert,
        "active_experts": a.moe_router_topk * expert,
        "shared_experts": _mlp(a, shared) + (a.hidden_size if a.moe_shared_expert_gate else 0)
        if shared
        else 0,
        "other": 2 * a.hidden_size * (a.moe_latent_size or 0),
    }


def _mixed_layer(a: Architecture, letter: str) -> LayerParameters:
    """Count the layer that one letter of a Mamba hybrid's or Hyena's pattern stands for."""
    norm = _norm(a, a.hidden_size)
    if a.kind == "hyena":
        mlp = _mlp(a, a.ffn_hidden_size)
        if letter == "*":
            output_bias = a.hidden_size  # Evo 2 has this bias although add_bias_linear is off
            return LayerParameters(attention=_attention(a) + output_bias, mlp=mlp, norms=2 * norm)
        return LayerParameters(mixer=mixers.hyena(a, letter), mlp=mlp, norms=2 * norm)
    if letter == "M":
        return LayerParameters(mixer=mixers.mamba(a), norms=norm)
    if letter == "*":
        return LayerParameters(attention=_attention(a), norms=norm)
    return LayerParameters(norms=norm, **_feed_forward(a, letter == "E"))


def layer_parameters(architecture: Architecture, layer: int) -> LayerParameters:
    """Count the parameters of decoder layer `layer`, starting at 0 (for BERT: encoder layer)."""
    a = architecture.of_layer(layer)
    if a.hybrid_override_pattern:
        return _mixed_layer(a, a.hybrid_override_pattern[layer])
    if a.is_linear_layer(layer):
        return LayerParameters(
            mixer=mixers.delta_net(a),
            norms=2 * _norm(a, a.hidden_size),
            **_feed_forward(a, a.is_moe_layer(layer)),
        )
    attention = _attention(a) + (_cross_attention(a) if a.kind == "t5" else 0)
    inside = _feed_forward(a, a.is_moe_layer(layer))
    if a.per_layer_embed_dim:
        inside["other"] = 2 * a.hidden_size * a.per_layer_embed_dim
    return LayerParameters(
        attention=attention, norms=num_norms(a, a.is_moe_layer(layer)) * _norm(a, a.hidden_size), **inside
    )


def num_norms(a: Architecture, has_experts: bool) -> int:
    """Return the number of norms of the residual stream in a layer of attention and an MLP or experts."""
    if a.kind == "t5":
        return 3
    if a.post_layer_norms:
        return 7 if has_experts else 5 if a.per_layer_embed_dim else 4
    return 2


def _prediction_layer(a: Architecture) -> LayerParameters:
    """Count a multi-token-prediction layer: two norms, a projection of both inputs, a layer, a norm."""
    inside = _feed_forward(a, a.num_moe_experts is not None)
    joined = 2 * a.hidden_size * a.hidden_size
    return LayerParameters(
        attention=_attention(a),
        norms=5 * _norm(a, a.hidden_size),
        **{**inside, "other": inside.get("other", 0) + joined},
    )


def _encoder_layer(a: Architecture) -> LayerParameters:
    return LayerParameters(
        attention=_attention(a), mlp=_mlp(a, a.ffn_hidden_size), norms=2 * _norm(a, a.hidden_size)
    )


def parameters(architecture: Architecture, vocab_size: int) -> Parameters:
    """Count the parameters of a model whose embedding has `vocab_size` rows (padded; see `vocab_rows`)."""
    a = architecture
    layers = [layer_parameters(a, layer) for layer in range(a.num_layers)]
    if a.encoder_num_layers:
        layers = [_encoder_layer(a)] * a.encoder_num_layers + layers
    layers += [_prediction_layer(a)] * (a.mtp_num_layers or 0)
    matrix = vocab_size * a.hidden_size
    output = 0 if a.share_embeddings_and_output_weights else matrix
    head = 0
    if a.kind in ("bert", "t5"):
        output += vocab_size
    if a.kind == "bert":
        head = _linear(a.hidden_size, a.hidden_size, True) + _norm(a, a.hidden_size)
    layer_width = a.num_layers * (a.per_layer_embed_dim or 0)
    num_final_norms = 2 if a.kind == "t5" else 1
    learned_positions = a.position_embedding_type == "learned_absolute"
    return Parameters(
        embedding=matrix,
        position_embedding=a.seq_length * a.hidden_size if learned_positions else 0,
        output_layer=output,
        output_matrix=matrix,
        final_norm=num_final_norms * _norm(a, a.hidden_size),
        head=head,
        layer_embedding=(a.per_layer_embed_vocab_size or 0) * layer_width,
        layer_projection=_linear(a.hidden_size, layer_width, False) + _norm(a, a.per_layer_embed_dim or 0),
        layers=tuple(layers),
    )
