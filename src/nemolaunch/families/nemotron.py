"""Nemotron 3 and 4, and the Llama-Nemotron models with heterogeneous layers (Super and Ultra)."""

from __future__ import annotations

import json

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.llama import PARTS as LLAMA_PARTS
from nemolaunch.families.parts import (
    DENSE,
    LINEAR_SCALING,
    NO_BIAS,
    NO_QK_NORM,
    NO_WINDOW,
    OTHER_ROPE,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NeverTied,
    Out,
    UnsupportedValueError,
    rope_scaling_of,
    sizes,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    HF,
    INPUT_NORM,
    LLAMA,
    MLP_NORM,
    NEMO,
    attention,
    outer,
    renamed,
)

NEMOTRON = ModelFamily(
    model_type="nemotron",
    architecture="NemotronForCausalLM",
    model_class="NemotronModel",
    copies_tied=True,
    config_class="NemotronConfig",
    parts=(
        *sizes(norm="norm_eps", norm_default=1e-5),
        Field("partial_rotary_factor", "rotary_percent", 0.5),
        NeverTied(),
        LINEAR_SCALING,
        HfIs("hidden_act", "relu2"),
        HfIs("attention_bias", False),
        HfIs("mlp_bias", False),
        NemoIs(
            activation_func="squared_relu",
            gated_linear_unit=False,
            normalization="LayerNorm",
            layernorm_zero_centered_gamma=True,
            position_embedding_type="rope",
        ),
        DENSE,
        NO_BIAS,
        NO_QK_NORM,
        NO_WINDOW,
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *MLP_NORM,
        *renamed(HF + "mlp.up_proj", NEMO + "mlp.linear_fc1"),
        *renamed(HF + "mlp.down_proj", NEMO + "mlp.linear_fc2"),
    ),
    refused=OTHER_ROPE,
)


def _blocks_to_nemo(hf: Fields, nemo: Out) -> None:
    blocks = hf["block_configs"]
    nemo["heterogeneous_layers_config_path"] = None
    nemo["heterogeneous_layers_config_encoded_json"] = json.dumps(dict(hf))
    groups = [
        block["attention"]["n_heads_in_group"] for block in blocks if block["attention"]["n_heads_in_group"]
    ]
    nemo["num_query_groups"] = hf["num_attention_heads"] // groups[0]
    nemo["ffn_hidden_size"] = hf.get("intermediate_size") or 4 * hf["hidden_size"]


def _blocks_to_hf(nemo: Fields, hf: Out) -> None:
    hf["block_configs"] = json.loads(nemo["heterogeneous_layers_config_encoded_json"])["block_configs"]
    hf["intermediate_size"] = hf["num_key_value_heads"] = None  # each block has its own


def _scaled(hf: Fields, nemo: Out) -> None:
    if rope_scaling_of(hf)[0] != "llama3":
        raise UnsupportedValueError(
            f"rope_scaling is of type {rope_scaling_of(hf)[0]!r}; NeMo's model always has 'llama3'"
        )


def _blocks_class(hf: Fields) -> str:
    return (
        "Llama33NemotronSuper49BConfig" if hf["num_hidden_layers"] == 80 else "Llama31NemotronUltra253BConfig"
    )


NEMOTRON_NAS = ModelFamily(
    model_type="nemotron-nas",
    architecture="DeciLMForCausalLM",
    model_class="LlamaNemotronModel",
    config_class=_blocks_class,
    parts=(
        *(part for part in LLAMA_PARTS if getattr(part, "hf", "") != "intermediate_size"),
        FieldFunctions(_blocks_to_nemo, _blocks_to_hf),
        FieldFunctions(_scaled, lambda nemo, hf: None),
    ),
    rules=(
        *LLAMA,
        # An attention or MLP that is replaced with one linear layer
        rule(HF + "self_attn.linear_attn.weight", NEMO + "self_attention.weight"),
        rule(HF + "input_layernorm.weight", NEMO + "self_attention.layer_norm_weight"),
        rule(HF + "mlp.linear_mlp.weight", NEMO + "mlp.weight"),
        rule(HF + "post_attention_layernorm.weight", NEMO + "mlp.layer_norm_weight"),
    ),
    remote_code=True,
)
FAMILIES = (NEMOTRON, NEMOTRON_NAS)
