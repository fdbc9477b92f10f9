"""GLM-4.5 and its Air: dense layers before those with experts, half of each head rotated. Only Bridge has them."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    GATED_LAYERS,
    LINEAR_SCALING,
    NO_WINDOW,
    OTHER_ROPE,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NemoSet,
    Out,
    UnsupportedValueError,
    dense_first_to_hf,
    dense_first_to_nemo,
    sizes,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    EXPERTS_NORM,
    HF,
    INPUT_NORM,
    MLP_NORM,
    NEMO,
    attention,
    gated_experts,
    gated_mlp,
    outer,
)


def _shared_to_nemo(hf: Fields, nemo: Out) -> None:
    nemo["moe_layer_freq"] = dense_first_to_nemo(hf)
    nemo["moe_shared_expert_intermediate_size"] = hf["moe_intermediate_size"] * hf.get("n_shared_experts", 1)
    if not hf.get("norm_topk_prob", True):
        raise UnsupportedValueError("norm_topk_prob is False; Bridge's model always normalises")


def _shared_to_hf(nemo: Fields, hf: Out) -> None:
    hf.update(dense_first_to_hf(nemo))
    shared, width = nemo.get("moe_shared_expert_intermediate_size") or 0, nemo["moe_ffn_hidden_size"]
    if not shared or shared % width:
        raise UnsupportedValueError(
            f"moe_shared_expert_intermediate_size is {shared}; in the Hugging Face model it is a multiple of "
            f"moe_ffn_hidden_size, {width}"
        )
    hf["n_shared_experts"], hf["norm_topk_prob"] = shared // width, True


GLM4_MOE = ModelFamily(
    model_type="glm4_moe",
    architecture="Glm4MoeForCausalLM",
    model_class="Glm4MoeForCausalLM",
    config_class="GPTModelProvider",
    parts=(
        *sizes(norm_default=1e-5),
        Field("partial_rotary_factor", "rotary_percent", 0.5),
        Field("attention_bias", "add_qkv_bias", False),
        Field("use_qk_norm", "qk_layernorm", False),
        Field("n_routed_experts", "num_moe_experts", 128),
        Field("num_experts_per_tok", "moe_router_topk", 8),
        Field("moe_intermediate_size", "moe_ffn_hidden_size", 1408),
        Field("routed_scaling_factor", "moe_router_topk_scaling_factor", 1.0),
        Field("n_group", "moe_router_num_groups", 1),
        Field("topk_group", "moe_router_group_topk", 1),
        FieldFunctions(_shared_to_nemo, _shared_to_hf),
        LINEAR_SCALING,
        tied(),
        HfIs("hidden_act", "silu"),
        GATED_LAYERS,
        NO_WINDOW,
        NemoIs(layernorm_zero_centered_gamma=False, rotary_interleaved=False, multi_latent_attention=False),
        NemoSet(
            moe_router_score_function="sigmoid",
            moe_router_enable_expert_bias=True,
            moe_router_pre_softmax=False,
        ),
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *MLP_NORM,
        *EXPERTS_NORM,
        *gated_mlp(),
        rule(HF + "mlp.gate.weight", NEMO + "mlp.router.weight"),
        rule(HF + "mlp.gate.e_score_correction_bias", NEMO + "mlp.router.expert_bias"),
        *gated_experts(HF + "mlp.experts.*", "gate_proj", "up_proj", "down_proj"),
        *gated_mlp(HF + "mlp.shared_experts.", NEMO + "mlp.shared_experts."),
    ),
    ignored=("num_nextn_predict_layers",),
    has_extra_layers=True,
    refused=f"{OTHER_ROPE}; norm_topk_prob off",
    caveat="the multi-token prediction (MTP) layers are omitted, as in transformers",
)
FAMILIES = (GLM4_MOE,)
