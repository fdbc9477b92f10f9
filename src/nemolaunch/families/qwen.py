"""Qwen 2, 2.5 and 3, dense and with experts."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    DENSE,
    FULL_ROTARY,
    GATED,
    LINEAR_SCALING,
    LONGEST_TWICE,
    NO_QK_NORM,
    OTHER_ROPE,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NeverTied,
    Out,
    SlidingWindow,
    UnsupportedValueError,
    sizes,
    tied,
)
from nemolaunch.families.tables import (
    EXPERTS_NORM,
    HF,
    INPUT_NORM,
    LLAMA,
    NEMO,
    attention,
    gated_experts,
    outer,
    renamed,
)

COMMON = (
    LINEAR_SCALING,
    SlidingWindow(switch="use_sliding_window", first="max_window_layers"),
    *GATED,
    FULL_ROTARY,
)

QWEN2 = ModelFamily(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    model_class="Qwen2Model",
    copies_tied=True,
    config_class="Qwen2Config",
    parts=(
        *sizes(),
        NeverTied(),
        *COMMON,
        DENSE,
        NO_QK_NORM,
        NemoIs(add_bias_linear=False, add_qkv_bias=True),
    ),
    rules=LLAMA,
    refused=f"{OTHER_ROPE}; a sliding window in some layers",
)

QWEN3_PARTS = (
    *sizes(head_dim=128),
    LONGEST_TWICE,
    tied(),
    *COMMON,
    HfIs("attention_bias", False),
    NemoIs(qk_layernorm=True, add_bias_linear=False, add_qkv_bias=False),
)
QWEN3 = ModelFamily(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    model_class="Qwen3Model",
    config_class="Qwen3Config",
    parts=(*QWEN3_PARTS, DENSE),
    rules=LLAMA,
    refused=f"{OTHER_ROPE}; a sliding window in some layers",
)


def _sparse_to_nemo(hf: Fields, nemo: Out) -> None:
    step, dense = hf.get("decoder_sparse_step", 1), hf.get("mlp_only_layers") or []
    layers = range(hf["num_hidden_layers"])
    without = [layer for layer in layers if layer in dense or (layer + 1) % step]
    if without:
        raise UnsupportedValueError(
            f"the layers {without} have no experts; NeMo's model has experts in all layers"
        )


def _sparse_to_hf(nemo: Fields, hf: Out) -> None:
    hf["decoder_sparse_step"], hf["mlp_only_layers"] = 1, []


def _normalised_to_nemo(hf: Fields, nemo: Out) -> None:
    # Softmax over the chosen experts only equals softmax over all, normalised
    nemo["moe_router_pre_softmax"] = not hf.get("norm_topk_prob", False)


def _normalised_to_hf(nemo: Fields, hf: Out) -> None:
    hf["norm_topk_prob"] = not nemo.get("moe_router_pre_softmax")


QWEN3_MOE = ModelFamily(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    model_class="Qwen3Model",
    config_class="Qwen3MoEConfig",
    parts=(
        *QWEN3_PARTS,
        Field("num_experts", "num_moe_experts", 128),
        Field("num_experts_per_tok", "moe_router_topk", 8),
        Field("moe_intermediate_size", "moe_ffn_hidden_size", 768),
        Field("router_aux_loss_coef", "moe_aux_loss_coeff", 0.001),
        FieldFunctions(_sparse_to_nemo, _sparse_to_hf),
        FieldFunctions(_normalised_to_nemo, _normalised_to_hf),
        NemoIs(
            moe_layer_freq=1,
            moe_shared_expert_intermediate_size=None,
            moe_router_score_function="softmax",
        ),
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *EXPERTS_NORM,
        *renamed(HF + "mlp.gate", NEMO + "mlp.router"),
        *gated_experts(HF + "mlp.experts.*", "gate_proj", "up_proj", "down_proj"),
    ),
    refused=f"{OTHER_ROPE}; layers without experts",
)
FAMILIES = (QWEN2, QWEN3, QWEN3_MOE)
