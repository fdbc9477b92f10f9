"""Qwen3-Next and Qwen3.5 with experts: gated delta nets, attention in every fourth layer. Only Bridge has them."""

from __future__ import annotations

from nemolaunch.families.config_json import FULL
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.ops import DeltaParts, DeltaProjection, GatedQkv, ZeroCentred
from nemolaunch.families.param_shapes import DELTA_CONVOLUTION, DELTA_PROJECTION
from nemolaunch.families.parts import (
    GATED_LAYERS,
    LINEAR_SCALING,
    OTHER_ROPE,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NemoSet,
    Out,
    UnsupportedValueError,
    sizes,
    tied,
)
from nemolaunch.families.rules import Rule, rule
from nemolaunch.families.tables import (
    EXPERTS_NORM,
    HF,
    INPUT_NORM,
    NEMO,
    fused_norm,
    gated_experts,
    gated_mlp,
    outer,
    renamed,
)

LINEAR = "linear_attention"
NET, NEMO_ATTENTION = HF + "linear_attn.", NEMO + "self_attention."


def _kinds(linear: list[int]) -> list[str]:
    return [LINEAR if one else FULL for one in linear]


def _layers_to_nemo(hf: Fields, nemo: Out) -> None:
    layers, every = hf["num_hidden_layers"], hf.get("full_attention_interval", 4)
    regular = [int((layer + 1) % every != 0) for layer in range(layers)]
    kinds = hf.get("layer_types") or _kinds(regular)
    if len(kinds) != layers or {*kinds} - {LINEAR, FULL}:
        raise UnsupportedValueError(
            f"layer_types is {kinds}; it must list {LINEAR} or {FULL} for each of the {layers} layers"
        )
    linear = [int(kind == LINEAR) for kind in kinds]
    nemo["linear_attention_freq"] = every if linear == regular else linear
    step, dense = hf.get("decoder_sparse_step", 1), hf.get("mlp_only_layers") or []
    if step != 1 or dense:
        raise UnsupportedValueError(
            f"decoder_sparse_step is {step} and mlp_only_layers {dense}; Bridge's model has experts in all layers"
        )
    if not hf.get("norm_topk_prob", True):
        raise UnsupportedValueError("norm_topk_prob is False; Bridge's model always normalises")


def _layers_to_hf(nemo: Fields, hf: Out) -> None:
    every, layers = nemo.get("linear_attention_freq"), nemo["num_layers"]
    if not every:
        raise UnsupportedValueError("linear_attention_freq is not set; the Hugging Face model has delta nets")
    if isinstance(every, int):
        hf["full_attention_interval"] = every
        every = [int((layer + 1) % every != 0) for layer in range(layers)]
    hf["layer_types"] = _kinds(list(every))


EVERYWHERE = FieldFunctions(
    lambda hf, nemo: None,
    lambda nemo, hf: hf.update(decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True),
)
PARTS = (
    *sizes(head_dim=256, without=["intermediate_size"]),
    Field("partial_rotary_factor", "rotary_percent", 0.25),
    *(
        Field(name, name, default)
        for name, default in (
            ("linear_conv_kernel_dim", 4),
            ("linear_key_head_dim", 128),
            ("linear_value_head_dim", 128),
            ("linear_num_key_heads", 16),
            ("linear_num_value_heads", 32),
        )
    ),
    Field("num_experts", "num_moe_experts", 512),
    Field("num_experts_per_tok", "moe_router_topk", 10),
    Field("moe_intermediate_size", "moe_ffn_hidden_size", 512),
    Field("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", 512),
    Field("router_aux_loss_coef", "moe_aux_loss_coeff", 0.001),
    FieldFunctions(_layers_to_nemo, _layers_to_hf),
    LINEAR_SCALING,
    tied(),
    HfIs("hidden_act", "silu"),
    HfIs("attention_bias", False),
    GATED_LAYERS,
    NemoIs(rotary_interleaved=False, multi_latent_attention=False, window_size=None, add_qkv_bias=False),
    NemoSet(
        layernorm_zero_centered_gamma=True,
        qk_layernorm=True,
        attention_output_gate=True,
        experimental_attention_variant="gated_delta_net",
        hetereogenous_dist_checkpoint=True,
        moe_layer_freq=1,
        moe_router_pre_softmax=False,
        moe_router_score_function="softmax",
        moe_shared_expert_gate=True,
    ),
)


def rules(*projection: Rule) -> tuple[Rule, ...]:
    """Return the rules of a model whose delta nets have this input projection."""
    return (
        *outer(),
        rule(
            f"{HF}self_attn.q_proj.weight {HF}self_attn.k_proj.weight {HF}self_attn.v_proj.weight",
            NEMO_ATTENTION + "linear_qkv.weight",
            GatedQkv(),
        ),
        *renamed(HF + "self_attn.o_proj", NEMO_ATTENTION + "linear_proj"),
        *renamed(HF + "self_attn.q_norm", NEMO_ATTENTION + "q_layernorm"),
        *renamed(HF + "self_attn.k_norm", NEMO_ATTENTION + "k_layernorm"),
        *INPUT_NORM,
        *fused_norm(HF + "input_layernorm", NEMO_ATTENTION + "in_proj"),
        *projection,
        rule(
            NET + "conv1d.weight",
            " ".join(f"{NEMO_ATTENTION}conv1d.weight.{part}" for part in DELTA_CONVOLUTION),
            DeltaParts(DELTA_CONVOLUTION),
        ),
        *(rule(NET + name, NEMO_ATTENTION + name) for name in ("A_log", "dt_bias")),
        rule(NET + "norm.weight", NEMO_ATTENTION + "out_norm.weight", ZeroCentred()),
        *renamed(NET + "out_proj", NEMO_ATTENTION + "out_proj"),
        *EXPERTS_NORM,
        rule(HF + "mlp.gate.weight", NEMO + "mlp.router.weight"),
        *gated_experts(HF + "mlp.experts.*", "gate_proj", "up_proj", "down_proj"),
        *gated_mlp(HF + "mlp.shared_expert.", NEMO + "mlp.shared_experts."),
        rule(HF + "mlp.shared_expert_gate.weight", NEMO + "mlp.shared_experts.gate_weight"),
    )


QWEN3_NEXT = ModelFamily(
    model_type="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    model_class="Qwen3NextForCausalLM",
    config_class="GPTModelProvider",
    parts=(*PARTS, Field("intermediate_size", "ffn_hidden_size", 5632), EVERYWHERE),
    rules=rules(
        rule(
            f"{NET}in_proj_qkvz.weight {NET}in_proj_ba.weight",
            " ".join(f"{NEMO_ATTENTION}in_proj.weight.{part}" for part in DELTA_PROJECTION),
            DeltaProjection(),
        )
    ),
    has_extra_layers=True,
    refused=f"{OTHER_ROPE}; layers without experts; norm_topk_prob off",
    caveat="the multi-token prediction (MTP) layers are omitted, as in transformers",
)
QWEN35_MOE = ModelFamily(
    model_type="qwen3_5_moe_text",
    architecture="Qwen3_5MoeForCausalLM",
    model_class="Qwen3_5MoeForCausalLM",
    config_class="GPTModelProvider",
    parts=PARTS,
    rules=rules(
        rule(
            f"{NET}in_proj_qkv.weight",
            " ".join(f"{NEMO_ATTENTION}in_proj.weight.{part}" for part in DELTA_CONVOLUTION),
            DeltaParts(DELTA_CONVOLUTION),
        ),
        rule(NET + "in_proj_z.weight", NEMO_ATTENTION + "in_proj.weight.z"),
        rule(NET + "in_proj_b.weight", NEMO_ATTENTION + "in_proj.weight.beta"),
        rule(NET + "in_proj_a.weight", NEMO_ATTENTION + "in_proj.weight.alpha"),
    ),
    ignored=("intermediate_size",),  # no layer is dense
    has_extra_layers=True,
    refused=f"{OTHER_ROPE}; the vision tower, experts stored as one tensor",
    caveat="transformers has it since release 5; the multi-token prediction (MTP) layers are omitted",
)
FAMILIES = (QWEN3_NEXT, QWEN35_MOE)
