"""Phi 3: query, key and value in one tensor, gate and up projection in another."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.ops import PackedQkv
from nemolaunch.families.parts import (
    DENSE,
    GATED,
    LINEAR_SCALING,
    NO_BIAS,
    NO_QK_NORM,
    OTHER_ROPE,
    Field,
    NeverTied,
    SlidingWindow,
    same_dropout,
    sizes,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import HF, INPUT_NORM, MLP_NORM, NEMO, outer, renamed

PHI3 = ModelFamily(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    model_class="Phi3Model",
    copies_tied=True,
    config_class="Phi3Config",
    parts=(
        *sizes(norm_default=1e-5),
        NeverTied(),
        Field("partial_rotary_factor", "rotary_percent", 1.0),
        Field("resid_pdrop", "hidden_dropout", 0.0),
        same_dropout("embd_pdrop", "resid_pdrop"),
        SlidingWindow(),
        LINEAR_SCALING,
        *GATED,
        DENSE,
        NO_BIAS,
        NO_QK_NORM,
    ),
    rules=(
        *outer(),
        *INPUT_NORM,
        *MLP_NORM,
        rule(HF + "self_attn.qkv_proj.weight", NEMO + "self_attention.linear_qkv.weight", PackedQkv()),
        *renamed(HF + "self_attn.o_proj", NEMO + "self_attention.linear_proj"),
        *renamed(HF + "mlp.gate_up_proj", NEMO + "mlp.linear_fc1"),
        *renamed(HF + "mlp.down_proj", NEMO + "mlp.linear_fc2"),
    ),
    ignored=("original_max_position_embeddings",),  # of longrope
    refused=f"{OTHER_ROPE} (the 128k models have longrope)",
)
FAMILIES = (PHI3,)
