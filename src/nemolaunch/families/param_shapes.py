"""The parameters of a NeMo model: names and shapes of its state dict, from its configuration.

They are what Megatron would build with Transformer Engine's layers (megatron.core.models.gpt.gpt_layer_specs,
.mamba.mamba_layer_specs, .ssm.mamba_mixer; NeMo's own layer specs for Gemma 2 and 3). Norms are part of the linear
layer that follows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Parameter = tuple[str, tuple[int, ...]]

MAMBA_CONV_WIDTH = 4  # megatron.core MambaMixer's d_conv, which is not configurable
MAMBA_EXPAND = 2
IN_PROJECTION = ("z", "x", "B", "C", "dt")  # parts of Mamba's input projection, in the order of their rows
CONVOLUTION = ("x", "B", "C")
DELTA_PROJECTION = ("query", "key", "value", "z", "beta", "alpha")  # of a gated delta net, likewise
DELTA_CONVOLUTION = ("query", "key", "value")
PARTS = {*IN_PROJECTION, *DELTA_PROJECTION}
EXPERT = re.compile(r"\d+$")
# Modules that are not Transformer Engine's, and so have no extra state in a checkpoint
PLAIN = (
    ".router",
    ".mixer",
    ".conv1d",
    ".mixer.norm",
    "word_embeddings",
    "position_embeddings",
    "output_layer",
    ".self_attention",
    ".shared_experts",
)


def parameters(config: Mapping[str, Any], vocab_rows: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters by name.

    Args:
        config: all fields of NeMo's configuration class, and what a family adds: `post_layer_norms` for norms after
            attention and MLP, `norm_over_heads` for norms of queries and keys over all heads, `own_modules` (see
            `extra_states`).
        vocab_rows: the number of rows of the embedding, including padding.
    """
    return dict(_model(ModelSizes(config), vocab_rows))


def extra_states(names: Iterable[str], own_modules: tuple[str, ...] = ()) -> list[str]:
    """Return the names of the extra states of the Transformer Engine modules with these parameters.

    They hold fp8 scales, if any, and are required when the model is loaded. An expert's ends with its number.

    Args:
        own_modules: ends of the names of modules of the model's own, which are not Transformer Engine's.
    """
    found: dict[str, None] = {}
    for name in names:
        module, _, last = name.rpartition(".")
        if last in PARTS:
            module = module.rpartition(".")[0]
        expert = EXPERT.search(last)
        if not module.endswith((*PLAIN, *own_modules)):
            found[f"{module}._extra_state{expert[0] if expert else ''}"] = None
    return list(found)


class ModelSizes:
    """A configuration, completed with the values that Megatron derives."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.layers = int(config["num_layers"])
        self.hidden = int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self.groups = int(config.get("num_query_groups") or self.heads)
        self.head_dim = int(config.get("kv_channels") or self.hidden // self.heads)
        self.ffn = int(config.get("ffn_hidden_size") or 4 * self.hidden)
        self.experts = int(config.get("num_moe_experts") or 0)
        self.moe_ffn = int(config.get("moe_ffn_hidden_size") or self.ffn)
        self.gated = 2 if config.get("gated_linear_unit") else 1

    def __getitem__(self, name: str) -> Any:
        return self.config.get(name)

    @property
    def mamba_rows(self) -> dict[str, int]:
        """The rows of the parts of Mamba's input projection, by their name in a checkpoint."""
        heads = int(self["mamba_num_heads"] or MAMBA_EXPAND * self.hidden // int(self["mamba_head_dim"]))
        inner = heads * int(self["mamba_head_dim"])
        state = int(self["mamba_num_groups"]) * int(self["mamba_state_dim"])
        return {"z": inner, "x": inner, "B": state, "C": state, "dt": heads}

    @property
    def delta_rows(self) -> dict[str, int]:
        """The rows of the parts of a gated delta net's input projection, by their name in a checkpoint."""
        keys, values = int(self["linear_num_key_heads"]), int(self["linear_num_value_heads"])
        key, value = keys * int(self["linear_key_head_dim"]), values * int(self["linear_value_head_dim"])
        return {"query": key, "key": key, "value": value, "z": value, "beta": values, "alpha": values}

    def is_delta_net(self, layer: int) -> bool:
        """Return whether a layer (from 0) has a gated delta net instead of attention."""
        every = self["linear_attention_freq"]
        if isinstance(every, (list, tuple)):
            return bool(every[layer])
        return bool(every) and (layer + 1) % int(every) != 0

    def has_experts(self, layer: int) -> bool:
        """Return whether a layer (from 0) has experts instead of a dense MLP."""
        frequency = self["moe_layer_freq"] or 1
        if not self.experts:
            return False
        return bool(frequency[layer]) if isinstance(frequency, (list, tuple)) else layer % frequency == 0

    @property
    def blocks(self) -> list[dict[str, Any]] | None:
        """One description per layer, if layers differ (Llama-Nemotron Super and Ultra)."""
        text = self["heterogeneous_layers_config_encoded_json"]
        return json.loads(text)["block_configs"] if text else None


def _model(s: ModelSizes, vocab_rows: int) -> Iterator[Parameter]:
    yield "embedding.word_embeddings.weight", (vocab_rows, s.hidden)
    if s["position_embedding_type"] == "learned_absolute":
        yield "embedding.position_embeddings.weight", (int(s["seq_length"]), s.hidden)
    pattern, blocks = s["hybrid_override_pattern"], s.blocks
    for layer in range(s.layers):
        prefix = f"decoder.layers.{layer}."
        if pattern:
            yield from _hybrid_layer(s, prefix, pattern[layer])
        elif blocks:
            yield from _block(s, prefix, blocks[layer])
        else:
            yield from _delta_net(s, prefix) if s.is_delta_net(layer) else _attention(s, prefix)
            yield from _experts(s, prefix) if s.has_experts(layer) else _mlp(s, prefix + "mlp.", s.ffn)
    norm = "decoder.final_norm" if pattern else "decoder.final_layernorm"
    yield from _norm(s, norm + ".", "")
    if not s["share_embeddings_and_output_weights"]:
        yield "output_layer.weight", (vocab_rows, s.hidden)


def _norm(s: ModelSizes, prefix: str, kind: str, width: int | None = None) -> Iterator[Parameter]:
    """Yield a norm's weight and, if it is a LayerNorm, bias."""
    yield f"{prefix}{kind}weight", (width or s.hidden,)
    if s["normalization"] == "LayerNorm":
        yield f"{prefix}{kind}bias", (width or s.hidden,)


def _attention(s: ModelSizes, prefix: str) -> Iterator[Parameter]:
    if s["multi_latent_attention"]:
        yield from _latent_attention(s, prefix)
        return
    attention = prefix + "self_attention."
    queries = s.heads * (2 if s["attention_output_gate"] else 1)
    rows = (queries + 2 * s.groups) * s.head_dim
    yield from _norm(s, attention + "linear_qkv.", "layer_norm_")
    yield attention + "linear_qkv.weight", (rows, s.hidden)
    if s["add_qkv_bias"] or s["add_bias_linear"]:
        yield attention + "linear_qkv.bias", (rows,)
    if s["qk_layernorm"]:
        heads = (s.heads, s.groups) if s["norm_over_heads"] else (1, 1)
        yield from _norm(s, attention + "q_layernorm.", "", heads[0] * s.head_dim)
        yield from _norm(s, attention + "k_layernorm.", "", heads[1] * s.head_dim)
    if s["softmax_type"] == "learnable":
        yield attention + "core_attention.softmax_offset", (s.heads,)
    yield from _output(s, attention + "linear_proj.", s.heads * s.head_dim)


def _delta_net(s: ModelSizes, prefix: str) -> Iterator[Parameter]:
    """Yield a gated delta net (megatron.core.ssm.gated_delta_net); its projection is split by its outputs."""
    net, rows = prefix + "self_attention.", s.delta_rows
    yield from _norm(s, net + "in_proj.", "layer_norm_")
    for part in DELTA_PROJECTION:
        yield f"{net}in_proj.weight.{part}", (rows[part], s.hidden)
    for part in DELTA_CONVOLUTION:
        yield f"{net}conv1d.weight.{part}", (rows[part], 1, int(s["linear_conv_kernel_dim"]))
    for name in ("A_log", "dt_bias"):
        yield net + name, (rows["alpha"],)
    yield from _norm(s, net + "out_norm.", "", int(s["linear_value_head_dim"]))
    yield net + "out_proj.weight", (s.hidden, rows["value"])


def _output(s: ModelSizes, prefix: str, width: int) -> Iterator[Parameter]:
    """Yield the output projection of attention or MLP."""
    yield prefix + "weight", (s.hidden, width)
    if s["add_bias_linear"]:
        yield prefix + "bias", (s.hidden,)
    if s["post_layer_norms"]:
        yield from _norm(s, prefix + "post_layernorm.", "")


def _latent_attention(s: ModelSizes, prefix: str) -> Iterator[Parameter]:
    attention = prefix + "self_attention."
    rotary, query = int(s["qk_pos_emb_head_dim"]), int(s["qk_head_dim"]) + int(s["qk_pos_emb_head_dim"])
    latent = int(s["kv_lora_rank"])
    yield from _norm(s, prefix + "input_layernorm.", "")
    if s["q_lora_rank"]:
        rank = int(s["q_lora_rank"])
        yield attention + "linear_q_down_proj.weight", (rank, s.hidden)
        if s["qk_layernorm"]:
            yield from _norm(s, attention + "linear_q_up_proj.", "layer_norm_", rank)
        yield attention + "linear_q_up_proj.weight", (s.heads * query, rank)
    else:
        yield attention + "linear_q_proj.weight", (s.heads * query, s.hidden)
    yield attention + "linear_kv_down_proj.weight", (latent + rotary, s.hidden)
    if s["qk_layernorm"]:
        yield from _norm(s, attention + "linear_kv_up_proj.", "layer_norm_", latent)
    rows = s.heads * (int(s["qk_head_dim"]) + int(s["v_head_dim"]))
    yield attention + "linear_kv_up_proj.weight", (rows, latent)
    yield from _output(s, attention + "linear_proj.", s.heads * int(s["v_head_dim"]))


def _mlp(s: ModelSizes, prefix: str, width: int, *, norm: bool = True) -> Iterator[Parameter]:
    if norm:
        yield from _norm(s, prefix + "linear_fc1.", "layer_norm_")
    yield prefix + "linear_fc1.weight", (s.gated * width, s.hidden)
    if s["add_bias_linear"]:
        yield prefix + "linear_fc1.bias", (s.gated * width,)
    yield from _output(s, prefix + "linear_fc2.", width)


def _experts(s: ModelSizes, prefix: str) -> Iterator[Parameter]:
    mlp, experts = prefix + "mlp.", s.experts
    yield from _norm(s, prefix + "pre_mlp_layernorm.", "")
    yield mlp + "router.weight", (experts, s.hidden)
    if s["add_bias_linear"]:
        yield mlp + "router.bias", (experts,)
    if s["moe_router_enable_expert_bias"]:
        yield mlp + "router.expert_bias", (experts,)
    for expert in range(experts):
        yield f"{mlp}experts.linear_fc1.weight{expert}", (s.gated * s.moe_ffn, s.hidden)
        if s["add_bias_linear"]:
            yield f"{mlp}experts.linear_fc1.bias{expert}", (s.gated * s.moe_ffn,)
        yield f"{mlp}experts.linear_fc2.weight{expert}", (s.hidden, s.moe_ffn)
        if s["add_bias_linear"]:
            yield f"{mlp}experts.linear_fc2.bias{expert}", (s.hidden,)
    shared = s["moe_shared_expert_intermediate_size"]
    if shared:
        yield from _mlp(s, mlp + "shared_experts.", shared, norm=False)
        if s["moe_shared_expert_gate"]:
            yield mlp + "shared_experts.gate_weight", (1, s.hidden)


def _hybrid_layer(s: ModelSizes, prefix: str, kind: str) -> Iterator[Parameter]:
    """Yield a layer of a Mamba hybrid, which is one of four kinds: M Mamba-2, * attention, - MLP, E experts."""
    if kind == "*":
        yield from _attention(s, prefix)
    elif kind == "-":
        yield from _mlp(s, prefix + "mlp.", s.ffn)
    elif kind == "E":
        yield from _experts(s, prefix)
    else:
        yield from _mamba(s, prefix + "mixer.")


def _mamba(s: ModelSizes, prefix: str) -> Iterator[Parameter]:
    """Yield a Mamba layer; checkpoints split the input projection and the convolution by their outputs."""
    rows = s.mamba_rows
    yield from _norm(s, prefix + "in_proj.", "layer_norm_")
    for part in IN_PROJECTION:
        yield f"{prefix}in_proj.weight.{part}", (rows[part], s.hidden)
    for part in CONVOLUTION:
        yield f"{prefix}conv1d.weight.{part}", (rows[part], 1, MAMBA_CONV_WIDTH)
        yield f"{prefix}conv1d.bias.{part}", (rows[part],)
    for name in ("A_log", "D", "dt_bias"):
        yield prefix + name, (rows["dt"],)
    yield prefix + "norm.weight", (rows["x"],)
    yield prefix + "out_proj.weight", (s.hidden, rows["x"])


def _block(s: ModelSizes, prefix: str, block: Mapping[str, Any]) -> Iterator[Parameter]:
    """Yield a layer whose attention or MLP is regular, of another width, one linear layer, or missing."""
    attention, ffn = block["attention"], block["ffn"]
    if attention.get("replace_with_linear"):
        yield from _linear(s, prefix + "self_attention.")
    elif not attention.get("no_op"):
        own = ModelSizes({**s.config, "num_query_groups": s.heads // int(attention["n_heads_in_group"])})
        yield from _attention(own, prefix)
    if ffn.get("replace_with_linear"):
        yield from _linear(s, prefix + "mlp.")
    elif not ffn.get("no_op"):
        width = ffn.get("ffn_hidden_size") or nemotron_ffn(float(ffn["ffn_mult"]), s.hidden)
        yield from _mlp(s, prefix + "mlp.", width)


def _linear(s: ModelSizes, prefix: str) -> Iterator[Parameter]:
    yield from _norm(s, prefix, "layer_norm_")
    yield prefix + "weight", (s.hidden, s.hidden)


def nemotron_ffn(multiple: float, hidden: int) -> int:
    """Return the width of a Llama-Nemotron MLP: 2/3 of that multiple of the hidden size, rounded up to 256.

    (megatron.core.transformer.heterogeneous.heterogeneous_config, MLPConfig.build_config_from_dict)
    """
    width = int(2 * multiple * hidden / 3)
    return width if width % 256 == 0 else width + 256 - width % 256
