"""MiniMax-M2: experts in all layers, norms of queries and keys over all heads. Only Megatron-Bridge has it."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    GATED_LAYERS,
    LINEAR_SCALING,
    NO_WINDOW,
    OTHER_ROPE,
    Derived,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NemoSet,
    Out,
    sizes,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import EXPERTS_NORM, HF, INPUT_NORM, NEMO, attention, gated_experts, outer

HEAD_DIM = 128
SPARSE = HF + "block_sparse_moe."


def _rotated_to_nemo(hf: Fields, nemo: Out) -> None:
    """Read how much of a head is rotated: the original file says it in channels, transformers as a share."""
    width = hf.get("head_dim") or HEAD_DIM
    channels = hf.get("rotary_dim")
    share = hf.get("partial_rotary_factor") or (channels / width if channels else 1.0)
    Derived("rotary_dim", lambda hf: int(share * width)).to_nemo(hf, nemo)
    nemo["rotary_percent"] = share
    nemo["moe_ffn_hidden_size"] = nemo["ffn_hidden_size"] = hf["intermediate_size"]


def _rotated_to_hf(nemo: Fields, hf: Out) -> None:
    hf["partial_rotary_factor"] = nemo["rotary_percent"]
    hf["rotary_dim"] = int(nemo["rotary_percent"] * hf["head_dim"])
    hf["intermediate_size"] = nemo.get("moe_ffn_hidden_size") or nemo["ffn_hidden_size"]


MINIMAX_M2 = ModelFamily(
    model_type="minimax_m2",
    architecture="MiniMaxM2ForCausalLM",
    model_class="MiniMaxM2ForCausalLM",
    config_class="GPTModelProvider",
    parts=(
        *sizes(rope_theta=5e6, head_dim=HEAD_DIM, without=["intermediate_size"]),
        FieldFunctions(_rotated_to_nemo, _rotated_to_hf),
        Field("num_local_experts", "num_moe_experts", 256),
        Field("num_experts_per_tok", "moe_router_topk", 8),
        Field("router_aux_loss_coef", "moe_aux_loss_coeff", 0.001),
        LINEAR_SCALING,
        tied(),
        HfIs("hidden_act", "silu"),
        HfIs("router_jitter_noise", 0.0, written=False),
        HfIs("scoring_func", "sigmoid"),
        HfIs("use_qk_norm", True),
        HfIs("qk_norm_type", "per_layer"),
        HfIs("use_routing_bias", True),
        HfIs("shared_intermediate_size", 0, written=False),
        GATED_LAYERS,
        NO_WINDOW,
        NemoIs(add_qkv_bias=False, rotary_interleaved=False, multi_latent_attention=False),
        NemoSet(
            qk_layernorm=True,
            moe_layer_freq=1,
            moe_router_pre_softmax=False,
            moe_router_score_function="sigmoid",
            moe_router_enable_expert_bias=True,
            moe_shared_expert_intermediate_size=None,
        ),
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *EXPERTS_NORM,
        rule(SPARSE + "gate.weight", NEMO + "mlp.router.weight"),
        rule(SPARSE + "e_score_correction_bias", NEMO + "mlp.router.expert_bias"),
        *gated_experts(SPARSE + "experts.*", "w1", "w3", "w2"),
    ),
    traits={"norm_over_heads": True, "own_modules": (".q_layernorm", ".k_layernorm")},
    ignored=("attn_type_list", "mtp_transformer_layers", "num_mtp_modules", "use_mtp"),
    has_extra_layers=True,
    refused=f"{OTHER_ROPE}; shared experts",
    caveat="transformers has it since release 5; the multi-token prediction (MTP) layers are omitted",
)
FAMILIES = (MINIMAX_M2,)
