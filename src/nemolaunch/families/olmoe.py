"""OLMoE: experts in all layers, norms of queries and keys over all heads. Only Megatron-Bridge has it."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    FULL_ROTARY,
    GATED,
    LINEAR_SCALING,
    NO_BIAS,
    NO_WINDOW,
    OTHER_ROPE,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoSet,
    Out,
    UnsupportedValueError,
    sizes,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import EXPERTS_NORM, HF, INPUT_NORM, NEMO, attention, gated_experts, outer


def _experts_to_nemo(hf: Fields, nemo: Out) -> None:
    nemo["moe_ffn_hidden_size"] = nemo["ffn_hidden_size"] = hf["intermediate_size"]
    if (hf.get("num_key_value_heads") or hf["num_attention_heads"]) != hf["num_attention_heads"]:
        raise UnsupportedValueError(
            f"num_key_value_heads is {hf['num_key_value_heads']} and num_attention_heads "
            f"{hf['num_attention_heads']}; Bridge's norm of the keys needs as many of both"
        )
    if hf.get("norm_topk_prob"):
        raise UnsupportedValueError("norm_topk_prob is True; Bridge's model does not normalise")


def _experts_to_hf(nemo: Fields, hf: Out) -> None:
    hf["intermediate_size"] = nemo.get("moe_ffn_hidden_size") or nemo["ffn_hidden_size"]
    hf["norm_topk_prob"] = False
    del hf["head_dim"]


OLMOE = ModelFamily(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    model_class="OlmoeForCausalLM",
    config_class="OlMoEModelProvider",
    parts=(
        *sizes(norm_default=1e-5, without=["intermediate_size"]),
        FieldFunctions(_experts_to_nemo, _experts_to_hf),
        Field("num_experts", "num_moe_experts", 64),
        Field("num_experts_per_tok", "moe_router_topk", 8),
        Field("router_aux_loss_coef", "moe_aux_loss_coeff", 0.01),
        LINEAR_SCALING,
        tied(),
        *GATED,
        FULL_ROTARY,
        NO_BIAS,
        NO_WINDOW,
        HfIs("attention_bias", False),
        HfIs("clip_qkv", None),
        NemoSet(
            qk_layernorm=True,
            hidden_dropout=0.0,
            moe_layer_freq=1,
            moe_router_pre_softmax=True,
            moe_router_score_function="softmax",
            moe_shared_expert_intermediate_size=None,
        ),
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *EXPERTS_NORM,
        rule(HF + "mlp.gate.weight", NEMO + "mlp.router.weight"),
        *gated_experts(HF + "mlp.experts.*", "gate_proj", "up_proj", "down_proj"),
    ),
    traits={"norm_over_heads": True},
    refused=f"{OTHER_ROPE}; fewer heads of keys than of queries; norm_topk_prob; clip_qkv",
)
FAMILIES = (OLMOE,)
