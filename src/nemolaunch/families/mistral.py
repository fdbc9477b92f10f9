"""Mistral and Mixtral."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    DENSE,
    FULL_ROTARY,
    GATED,
    LINEAR_SCALING,
    LONGEST_TWICE,
    NO_BIAS,
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
    sizes,
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

WINDOW_BY_DEFAULT = SlidingWindow(default=4096)


def _window_to_nemo(hf: Fields, nemo: Out) -> None:
    WINDOW_BY_DEFAULT.to_nemo(hf, nemo)
    # Windows with context parallelism need this type of exchange, which is the class's default
    nemo["cp_comm_type"] = "a2a" if nemo["window_size"] else None


MISTRAL = ModelFamily(
    model_type="mistral",
    architecture="MistralForCausalLM",
    model_class="MistralModel",
    copies_tied=True,
    config_class="MistralConfig7B",
    parts=(
        *sizes(),
        NeverTied(),
        FieldFunctions(_window_to_nemo, WINDOW_BY_DEFAULT.to_hf),
        LINEAR_SCALING,
        *GATED,
        DENSE,
        NO_BIAS,
        NO_QK_NORM,
        FULL_ROTARY,
    ),
    rules=LLAMA,
    refused=OTHER_ROPE,
)

MIXTRAL = ModelFamily(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    model_class="MixtralModel",
    copies_tied=True,
    config_class="MixtralConfig8x7B",
    parts=(
        *sizes(norm_default=1e-5, rope_theta=1e6),
        NeverTied(),
        SlidingWindow(),
        LINEAR_SCALING,
        LONGEST_TWICE,
        Field("num_local_experts", "num_moe_experts", 8),
        Field("num_experts_per_tok", "moe_router_topk", 2),
        HfIs("router_jitter_noise", 0.0, written=False),
        Field("router_aux_loss_coef", "moe_aux_loss_coeff", 0.001),
        *GATED,
        NemoIs(moe_layer_freq=1, moe_router_pre_softmax=False, moe_shared_expert_intermediate_size=None),
        NO_BIAS,
        NO_QK_NORM,
        FULL_ROTARY,
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *EXPERTS_NORM,
        *renamed(HF + "block_sparse_moe.gate", NEMO + "mlp.router"),
        *gated_experts(HF + "block_sparse_moe.experts.*", "w1", "w3", "w2"),
    ),
    refused=OTHER_ROPE,
)
FAMILIES = (MISTRAL, MIXTRAL)
