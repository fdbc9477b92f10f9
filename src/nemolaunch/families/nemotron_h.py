"""Nemotron-H, Nemotron Nano 2 and Nemotron 3 Nano: Mamba-2, attention, MLP and expert layers in a given order.

NeMo 2 has none with experts; those are described by Megatron-Bridge's class.
"""

from __future__ import annotations

import math

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.nemo_config import classes, defaults, symbol
from nemolaunch.families.ops import MambaParts, Qkv
from nemolaunch.families.param_shapes import CONVOLUTION, IN_PROJECTION
from nemolaunch.families.parts import (
    NO_BIAS,
    NO_QK_NORM,
    NO_WINDOW,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NemoSet,
    Out,
    UnsupportedValueError,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import NEMO

# How the step sizes are limited: not at all. Transformers 5 writes infinity in its own way
NO_LIMIT = ([0.0, math.inf], [0.0, {"__float__": "Infinity"}], None)
HOW_IT_RUNS = (
    "chunk_size", "expand", "mamba_ssm_cache_dtype", "use_mamba_kernels", "rescale_prenorm_residual",
    "time_step_floor", "time_step_max", "time_step_min", "attention_head_dim",
)  # fmt: skip
# Of layers that the pattern need not have, and of those that predict further tokens
OF_EXPERTS = (
    "moe_intermediate_size", "moe_latent_size", "moe_shared_expert_intermediate_size", "moe_shared_expert_overlap",
    "mtp_layers_block_type", "mtp_hybrid_override_pattern", "n_group", "n_routed_experts", "n_shared_experts",
    "norm_topk_prob", "num_experts_per_tok", "num_nextn_predict_layers", "routed_scaling_factor", "topk_group",
)  # fmt: skip
# Fields of config.json of layers with experts -> Megatron's, and their defaults
EXPERTS = {
    "n_routed_experts": ("num_moe_experts", None),
    "num_experts_per_tok": ("moe_router_topk", None),
    "moe_intermediate_size": ("moe_ffn_hidden_size", None),
    "moe_shared_expert_intermediate_size": ("moe_shared_expert_intermediate_size", None),
    "routed_scaling_factor": ("moe_router_topk_scaling_factor", 1.0),
    "n_group": ("moe_router_num_groups", 1),
    "topk_group": ("moe_router_group_topk", 1),
}
ROUTER = NemoSet(moe_router_score_function="sigmoid", moe_router_enable_expert_bias=True)
LAYER = "backbone.layers.*."
MIXER = LAYER + "mixer."


def _heads_to_nemo(hf: Fields, nemo: Out) -> None:
    heads = hf["num_attention_heads"]
    nemo["num_attention_heads"] = heads
    nemo["num_query_groups"] = hf.get("num_key_value_heads") or heads
    width = hf.get("head_dim") or hf.get("attention_head_dim") or hf["hidden_size"] // heads
    nemo["kv_channels"] = width
    pattern = hf["hybrid_override_pattern"]
    if set(pattern) - set("M*-E"):
        raise UnsupportedValueError(
            f"hybrid_override_pattern is {pattern!r}; Megatron's model supports only M, *, - and E layers"
        )


def _heads_to_hf(nemo: Fields, hf: Out) -> None:
    heads = nemo["num_attention_heads"]
    hf["num_attention_heads"] = heads
    hf["num_key_value_heads"] = nemo.get("num_query_groups") or heads
    hf["head_dim"] = nemo.get("kv_channels") or nemo["hidden_size"] // heads
    if not nemo.get("mamba_num_heads"):
        hf["mamba_num_heads"] = 2 * nemo["hidden_size"] // nemo["mamba_head_dim"]


def _experts_to_nemo(hf: Fields, nemo: Out) -> None:
    if "E" not in hf["hybrid_override_pattern"]:
        return
    for part in (Field(name, ours, default) for name, (ours, default) in EXPERTS.items()):
        part.to_nemo(hf, nemo)
    for name, value in (("n_shared_experts", 1), ("norm_topk_prob", True), ("moe_latent_size", None)):
        HfIs(name, value).to_nemo(hf, nemo)
    ROUTER.to_nemo(hf, nemo)
    # Bridge's class has other defaults than NeMo's
    nemo.update(
        activation_func=symbol("megatron.core.activations.squared_relu"),
        position_embedding_type="none",
        share_embeddings_and_output_weights=bool(hf.get("tie_word_embeddings")),
    )


def _experts_to_hf(nemo: Fields, hf: Out) -> None:
    if "E" not in nemo["hybrid_override_pattern"]:  # Bridge's importer sets a number of experts nevertheless
        return
    for name, (ours, default) in EXPERTS.items():
        value = nemo.get(ours)
        hf[name] = default if value is None else value
    hf.update(n_shared_experts=1, norm_topk_prob=True)
    ROUTER.to_hf(nemo, hf)


def _config_class(hf: Fields) -> str:
    """Return the class of the published size, by which NeMo's converter tells models apart, or the base class."""
    if "E" in hf["hybrid_override_pattern"]:
        return "HybridModelProvider"
    for name, row in classes().items():
        if row["extends"] == "NemotronHConfigBase":
            values = defaults(name)
            same = (values["hidden_size"], values["hybrid_override_pattern"]) == (
                hf["hidden_size"],
                hf["hybrid_override_pattern"],
            )
            if same:
                return name
    return "NemotronHConfigBase"


NEMOTRON_H = ModelFamily(
    model_type="nemotron_h",
    architecture="NemotronHForCausalLM",
    model_class="MambaModel",
    config_class=_config_class,
    parts=(
        Field("num_hidden_layers", "num_layers"),
        Field("hidden_size", "hidden_size"),
        Field("intermediate_size", "ffn_hidden_size"),
        Field("hybrid_override_pattern", "hybrid_override_pattern"),
        Field("mamba_num_heads", "mamba_num_heads"),
        Field("mamba_head_dim", "mamba_head_dim", 64),
        Field("ssm_state_size", "mamba_state_dim", 128),
        Field("n_groups", "mamba_num_groups", 8),
        FieldFunctions(_heads_to_nemo, _heads_to_hf),
        Field("vocab_size", "vocab_size"),
        Field("max_position_embeddings", "seq_length"),
        Field("initializer_range", "init_method_std", 0.02),
        Field("layer_norm_epsilon", "layernorm_epsilon", 1e-5),
        Field("attention_dropout", "attention_dropout", 0.0),
        tied(),
        HfIs("mlp_hidden_act", "relu2"),
        HfIs("mamba_hidden_act", "silu"),
        HfIs("conv_kernel", 4),
        HfIs("hidden_dropout", 0.0, written=False),
        HfIs("mamba_proj_bias", False, written=False),
        HfIs("sliding_window", None, written=False),
        HfIs("time_step_limit", *NO_LIMIT, written=False),
        HfIs("use_conv_bias", True),
        HfIs("use_bias", False),
        HfIs("mlp_bias", False),
        HfIs("attention_bias", False),
        NemoIs(gated_linear_unit=False, normalization="RMSNorm", position_embedding_type="none"),
        FieldFunctions(_experts_to_nemo, _experts_to_hf),
        NO_BIAS,
        NO_QK_NORM,
        NO_WINDOW,
    ),
    rules=(
        rule("backbone.embeddings.weight", "embedding.word_embeddings.weight"),
        rule("backbone.embedding.weight", "embedding.word_embeddings.weight"),  # as transformers 5 saves it
        rule("backbone.norm_f.weight", "decoder.final_norm.weight"),
        rule("lm_head.weight", "output_layer.weight"),
        rule(LAYER + "norm.weight", NEMO + "mixer.in_proj.layer_norm_weight"),
        rule(LAYER + "norm.weight", NEMO + "self_attention.linear_qkv.layer_norm_weight"),
        rule(LAYER + "norm.weight", NEMO + "mlp.linear_fc1.layer_norm_weight"),
        *(rule(MIXER + name, NEMO + "mixer." + name) for name in ("A_log", "D", "dt_bias")),
        rule(MIXER + "norm.weight", NEMO + "mixer.norm.weight"),
        rule(MIXER + "out_proj.weight", NEMO + "mixer.out_proj.weight"),
        rule(
            MIXER + "in_proj.weight",
            " ".join(f"{NEMO}mixer.in_proj.weight.{part}" for part in IN_PROJECTION),
            MambaParts(IN_PROJECTION),
        ),
        *(
            rule(
                f"{MIXER}conv1d.{kind}",
                " ".join(f"{NEMO}mixer.conv1d.{kind}.{part}" for part in CONVOLUTION),
                MambaParts(CONVOLUTION),
            )
            for kind in ("weight", "bias")
        ),
        rule(
            f"{MIXER}q_proj.weight {MIXER}k_proj.weight {MIXER}v_proj.weight",
            NEMO + "self_attention.linear_qkv.weight",
            Qkv(),
        ),
        rule(MIXER + "o_proj.weight", NEMO + "self_attention.linear_proj.weight"),
        rule(LAYER + "norm.weight", NEMO + "pre_mlp_layernorm.weight"),
        rule(MIXER + "gate.weight", NEMO + "mlp.router.weight"),
        rule(MIXER + "gate.e_score_correction_bias", NEMO + "mlp.router.expert_bias"),
        rule(MIXER + "experts.*.up_proj.weight", NEMO + "mlp.experts.linear_fc1.weight*"),
        rule(MIXER + "experts.*.down_proj.weight", NEMO + "mlp.experts.linear_fc2.weight*"),
        rule(MIXER + "shared_experts.up_proj.weight", NEMO + "mlp.shared_experts.linear_fc1.weight"),
        rule(MIXER + "shared_experts.down_proj.weight", NEMO + "mlp.shared_experts.linear_fc2.weight"),
        rule(MIXER + "up_proj.weight", NEMO + "mlp.linear_fc1.weight"),
        rule(MIXER + "down_proj.weight", NEMO + "mlp.linear_fc2.weight"),
    ),
    remote_code=True,
    has_extra_layers=True,
    ignored=(*HOW_IT_RUNS, *OF_EXPERTS),
)
FAMILIES = (NEMOTRON_H,)
