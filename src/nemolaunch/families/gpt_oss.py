"""GPT-OSS: experts with biases, alternating windows, learnable attention sinks."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.ops import StackedExperts
from nemolaunch.families.parts import (
    Derived,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    Out,
    UnsupportedValueError,
    alternating,
    rope_scaling_of,
    sizes,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    EXPERTS_NORM,
    HF,
    INPUT_NORM,
    NEMO,
    attention,
    outer,
    renamed,
)

# Fields of config.json's rope_scaling -> NeMo's fields, and their defaults
YARN = {
    "factor": ("yarn_rotary_scaling_factor", 32.0),
    "beta_fast": ("yarn_beta_fast", 32.0),
    "beta_slow": ("yarn_beta_slow", 1.0),
    "truncate": ("yarn_correction_range_round_to_int", False),
    "original_max_position_embeddings": ("yarn_original_max_position_embeddings", 4096),
}


def _positions_to_nemo(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind != "yarn":
        raise UnsupportedValueError(f"rope_scaling is of type {kind!r}; it must be 'yarn'")
    nemo["position_embedding_type"] = "yarn"
    nemo.update({ours: scaling.get(theirs, default) for theirs, (ours, default) in YARN.items()})


def _positions_to_hf(nemo: Fields, hf: Out) -> None:
    if nemo.get("position_embedding_type") != "yarn":
        raise UnsupportedValueError(
            f"position_embedding_type is {nemo.get('position_embedding_type')!r}; it must be 'yarn'"
        )
    hf["rope_scaling"] = {"rope_type": "yarn", **{theirs: nemo[ours] for theirs, (ours, _) in YARN.items()}}


def _windows_to_nemo(hf: Fields, nemo: Out) -> None:
    window = hf.get("sliding_window", 128)
    if not window:
        raise UnsupportedValueError(
            f"sliding_window is {window}; NeMo's model has a window in every other layer"
        )
    Derived("layer_types", lambda hf: alternating(hf["num_hidden_layers"], 2)).to_nemo(hf, nemo)
    nemo["window_size"], nemo["window_attn_skip_freq"] = [window - 1, 0], 2


def _windows_to_hf(nemo: Fields, hf: Out) -> None:
    if not nemo.get("window_size") or nemo.get("window_attn_skip_freq") != 2:
        raise UnsupportedValueError(
            f"window_size is {nemo.get('window_size')} and window_attn_skip_freq {nemo.get('window_attn_skip_freq')}; "
            "the Hugging Face model has a window in every other layer (window_attn_skip_freq=2)"
        )
    hf["sliding_window"] = nemo["window_size"][0] + 1
    hf["layer_types"] = alternating(nemo["num_layers"], 2)


def _experts_to_nemo(hf: Fields, nemo: Out) -> None:
    nemo["moe_ffn_hidden_size"] = nemo["ffn_hidden_size"] = hf["intermediate_size"]


def _experts_to_hf(nemo: Fields, hf: Out) -> None:
    hf["intermediate_size"] = nemo.get("moe_ffn_hidden_size") or nemo["ffn_hidden_size"]


EXPERTS, NEMO_EXPERTS = HF + "mlp.experts.", NEMO + "mlp.experts."
GPT_OSS = ModelFamily(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    model_class="GPTOSSModel",
    config_class="GPTOSSConfig",
    parts=(
        *sizes(norm_default=1e-5, rope_theta=150000.0, head_dim=64, without=["intermediate_size"]),
        FieldFunctions(_experts_to_nemo, _experts_to_hf),
        Field("num_local_experts", "num_moe_experts", 128),
        Field("num_experts_per_tok", "moe_router_topk", 4),
        Field("swiglu_limit", "activation_func_clamp_value", 7.0),
        FieldFunctions(_positions_to_nemo, _positions_to_hf),
        FieldFunctions(_windows_to_nemo, _windows_to_hf),
        tied(),
        HfIs("hidden_act", "silu"),
        HfIs("attention_bias", True),
        Derived("experts_per_token", lambda hf: hf.get("num_experts_per_tok", 4)),
        NemoIs(
            activation_func="quick_gelu",
            glu_linear_offset=1.0,
            gated_linear_unit=True,
            add_bias_linear=True,
            normalization="RMSNorm",
            softmax_type="learnable",
            moe_router_pre_softmax=False,
            qk_layernorm=False,
        ),
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *EXPERTS_NORM,
        rule(HF + "self_attn.sinks", NEMO + "self_attention.core_attention.softmax_offset"),
        *renamed(HF + "mlp.router", NEMO + "mlp.router"),
        rule(EXPERTS + "gate_up_proj", NEMO_EXPERTS + "linear_fc1.weight#", StackedExperts(interleaved=True)),
        rule(
            EXPERTS + "gate_up_proj_bias", NEMO_EXPERTS + "linear_fc1.bias#", StackedExperts(interleaved=True)
        ),
        rule(EXPERTS + "down_proj", NEMO_EXPERTS + "linear_fc2.weight#", StackedExperts()),
        rule(EXPERTS + "down_proj_bias", NEMO_EXPERTS + "linear_fc2.bias#", StackedExperts()),
    ),
    ignored=("initial_context_length", "router_aux_loss_coef"),
)
FAMILIES = (GPT_OSS,)
