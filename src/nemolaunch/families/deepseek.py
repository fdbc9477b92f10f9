"""DeepSeek V2, V2 Lite, V3 and R1, Moonlight, Kimi K2: multi-latent attention, shared and routed experts."""

from __future__ import annotations

import dataclasses

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    LONGEST_TWICE,
    NO_BIAS,
    NO_WINDOW,
    Derived,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    OptionalField,
    Out,
    UnsupportedValueError,
    dense_first_to_hf,
    dense_first_to_nemo,
    rope_scaling_of,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    EXPERTS_NORM,
    HF,
    MLP_NORM,
    NEMO,
    gated_experts,
    gated_mlp,
    outer,
    renamed,
)

# Fields of config.json's rope_scaling -> NeMo's fields, and their defaults
YARN = {
    "factor": ("rotary_scaling_factor", 40.0),
    "original_max_position_embeddings": ("original_max_position_embeddings", 4096),
    "beta_fast": ("beta_fast", 32),
    "beta_slow": ("beta_slow", 1),
    "mscale": ("mscale", 1.0),
    "mscale_all_dim": ("mscale_all_dim", 0.0),
}


def _layers_to_nemo(hf: Fields, nemo: Out) -> None:
    if hf.get("moe_layer_freq", 1) != 1:
        raise UnsupportedValueError(
            f"moe_layer_freq is {hf['moe_layer_freq']}; NeMo's model has experts in all layers after the dense ones"
        )
    nemo["moe_layer_freq"] = dense_first_to_nemo(hf)
    shared = hf.get("n_shared_experts")
    nemo["moe_shared_expert_intermediate_size"] = hf["moe_intermediate_size"] * shared if shared else None
    # NeMo keeps the number of key/value heads here, which multi-latent attention does not use
    nemo["kv_channels"] = hf.get("num_key_value_heads") or hf["num_attention_heads"]


def _layers_to_hf(nemo: Fields, hf: Out) -> None:
    hf.update({**dense_first_to_hf(nemo), "moe_layer_freq": 1})
    shared, width = nemo.get("moe_shared_expert_intermediate_size") or 0, nemo["moe_ffn_hidden_size"]
    if shared % width:
        raise UnsupportedValueError(
            f"moe_shared_expert_intermediate_size is {shared}; in the Hugging Face model it is a multiple of "
            f"moe_ffn_hidden_size, {width}"
        )
    hf["n_shared_experts"] = shared // width or None
    hf["num_key_value_heads"] = nemo["num_attention_heads"]


def _positions_to_nemo(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind not in (None, "yarn"):
        raise UnsupportedValueError(f"rope_scaling is of type {kind!r}; NeMo's model supports 'yarn' or none")
    nemo["rope_type"] = "yarn" if kind else "rope"
    if not scaling.get("truncate", True):
        raise UnsupportedValueError(
            "rope_scaling.truncate is False; NeMo's model always rounds the corrected range"
        )
    nemo["rotary_scaling_factor"] = 1.0  # which the scale of the scores depends on, whatever the type
    if kind:
        nemo.update({ours: scaling.get(theirs, default) for theirs, (ours, default) in YARN.items()})


def _positions_to_hf(nemo: Fields, hf: Out) -> None:
    hf["rope_scaling"] = None
    factor = nemo.get("rotary_scaling_factor")
    if nemo.get("rope_type") == "yarn" and factor != 1.0:
        values = {theirs: nemo[ours] for theirs, (ours, _) in YARN.items()}
        hf["rope_scaling"] = {"type": "yarn", "rope_type": "yarn", **values}


def _v2_router_to_nemo(hf: Fields, nemo: Out) -> None:
    if hf.get("scoring_func", "softmax") != "softmax":
        raise UnsupportedValueError(
            f"scoring_func is {hf['scoring_func']!r}; it must be 'softmax' for this model_type"
        )
    method, groups, chosen = hf.get("topk_method", "greedy"), hf.get("n_group"), hf.get("topk_group")
    if method not in ("greedy", "group_limited_greedy"):
        raise UnsupportedValueError(
            f"topk_method is {method!r}; it must be 'greedy' or 'group_limited_greedy' for this model_type"
        )
    grouped = method == "group_limited_greedy"
    nemo["moe_router_num_groups"] = groups if grouped else None
    nemo["moe_router_group_topk"] = chosen if grouped else None
    nemo["moe_router_pre_softmax"] = not hf.get("norm_topk_prob", False)


def _v2_router_to_hf(nemo: Fields, hf: Out) -> None:
    groups = int(nemo.get("moe_router_num_groups") or 1)
    hf["topk_method"] = "group_limited_greedy" if groups > 1 else "greedy"
    hf["n_group"], hf["topk_group"] = groups, nemo.get("moe_router_group_topk") or 1
    hf["norm_topk_prob"] = not nemo.get("moe_router_pre_softmax")
    hf["scoring_func"] = "softmax"


LATENT = HF + "self_attn."
LATENT_NEMO = NEMO + "self_attention."
RULES = (
    *outer(),
    *renamed(HF + "input_layernorm", NEMO + "input_layernorm"),
    *renamed(LATENT + "o_proj", LATENT_NEMO + "linear_proj"),
    *renamed(LATENT + "q_proj", LATENT_NEMO + "linear_q_proj"),
    *renamed(LATENT + "q_a_proj", LATENT_NEMO + "linear_q_down_proj"),
    *renamed(LATENT + "q_b_proj", LATENT_NEMO + "linear_q_up_proj"),
    *renamed(LATENT + "kv_a_proj_with_mqa", LATENT_NEMO + "linear_kv_down_proj"),
    *renamed(LATENT + "kv_b_proj", LATENT_NEMO + "linear_kv_up_proj"),
    rule(LATENT + "q_a_layernorm.weight", LATENT_NEMO + "linear_q_up_proj.layer_norm_weight"),
    rule(LATENT + "kv_a_layernorm.weight", LATENT_NEMO + "linear_kv_up_proj.layer_norm_weight"),
    *MLP_NORM,
    *EXPERTS_NORM,
    *gated_mlp(),
    rule(HF + "mlp.gate.weight", NEMO + "mlp.router.weight"),
    rule(HF + "mlp.gate.e_score_correction_bias", NEMO + "mlp.router.expert_bias"),
    *gated_experts(HF + "mlp.experts.*", "gate_proj", "up_proj", "down_proj"),
    *gated_mlp(HF + "mlp.shared_experts.", NEMO + "mlp.shared_experts."),
)
PARTS = (
    Field("num_hidden_layers", "num_layers"),
    Field("hidden_size", "hidden_size"),
    Field("intermediate_size", "ffn_hidden_size"),
    Field("num_attention_heads", "num_attention_heads"),
    Field("vocab_size", "vocab_size"),
    Field("max_position_embeddings", "seq_length"),
    LONGEST_TWICE,
    Field("initializer_range", "init_method_std", 0.02),
    Field("rms_norm_eps", "layernorm_epsilon", 1e-6),
    Field("rope_theta", "rotary_base", 10000.0),
    Field("attention_dropout", "attention_dropout", 0.0),
    OptionalField("q_lora_rank", "q_lora_rank"),
    Field("kv_lora_rank", "kv_lora_rank", 512),
    Field("qk_nope_head_dim", "qk_head_dim", 128),
    Field("qk_rope_head_dim", "qk_pos_emb_head_dim", 64),
    Field("v_head_dim", "v_head_dim", 128),
    Field("n_routed_experts", "num_moe_experts"),
    Field("num_experts_per_tok", "moe_router_topk"),
    Field("moe_intermediate_size", "moe_ffn_hidden_size"),
    Field("routed_scaling_factor", "moe_router_topk_scaling_factor", 1.0),
    Field("aux_loss_alpha", "moe_aux_loss_coeff", 0.001),
    FieldFunctions(_layers_to_nemo, _layers_to_hf),
    FieldFunctions(_positions_to_nemo, _positions_to_hf),
    tied(),
    HfIs("hidden_act", "silu"),
    HfIs("attention_bias", False),
    HfIs("mlp_bias", False, written=False),
    Derived("head_dim", lambda hf: hf.get("qk_rope_head_dim", 64)),
    Derived("qk_head_dim", lambda hf: hf.get("qk_nope_head_dim", 128) + hf.get("qk_rope_head_dim", 64)),
    NemoIs(
        activation_func="silu",
        gated_linear_unit=True,
        normalization="RMSNorm",
        qk_layernorm=True,
        multi_latent_attention=True,
    ),
    NO_BIAS,
    NO_WINDOW,
)
V2 = ModelFamily(
    model_type="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    model_class="DeepSeekModel",
    config_class="DeepSeekConfig",
    parts=(
        *PARTS,
        FieldFunctions(_v2_router_to_nemo, _v2_router_to_hf),
        NemoIs(moe_router_enable_expert_bias=False),
    ),
    rules=RULES,
    ignored=("seq_aux", "num_nextn_predict_layers"),
)


def _v3_router_to_nemo(hf: Fields, nemo: Out) -> None:
    if not hf.get("norm_topk_prob", True):
        raise UnsupportedValueError("norm_topk_prob is False; NeMo's model always normalises")
    nemo.update(moe_router_score_function="sigmoid", moe_router_enable_expert_bias=True)


def _v3_router_to_hf(nemo: Fields, hf: Out) -> None:
    if nemo.get("moe_router_score_function") != "sigmoid":
        raise UnsupportedValueError(
            f"moe_router_score_function is {nemo.get('moe_router_score_function')!r}; it must be 'sigmoid'"
        )
    hf.update(scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True)


V3 = ModelFamily(
    model_type="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    model_class="DeepSeekModel",
    config_class="DeepSeekConfig",
    parts=(
        *PARTS,
        HfIs("scoring_func", "sigmoid"),
        HfIs("rope_interleave", True, written=False),
        HfIs("topk_method", "noaux_tc"),
        Field("n_group", "moe_router_num_groups", 8),
        Field("topk_group", "moe_router_group_topk", 4),
        FieldFunctions(_v3_router_to_nemo, _v3_router_to_hf),
    ),
    rules=RULES,
    ignored=("seq_aux", "num_nextn_predict_layers"),
    has_extra_layers=True,
    caveat="the multi-token prediction (MTP) layers are omitted, as in transformers",
)
# The same model under another name; an export is a `deepseek_v3`, which transformers has
KIMI_K2 = dataclasses.replace(V3, model_type="kimi_k2")
FAMILIES = (V2, V3, KIMI_K2)
