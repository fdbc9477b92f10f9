"""Baichuan 2 and ChatGLM 2 and 3, whose classes come with the checkpoints and not with transformers."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.ops import PackedQkv
from nemolaunch.families.parts import (
    DENSE,
    FULL_ROTARY,
    GATED,
    NO_BIAS,
    NO_QK_NORM,
    NO_WINDOW,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NeverTied,
    Out,
    UnsupportedValueError,
    sizes,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    HF,
    INPUT_NORM,
    MLP_NORM,
    NEMO,
    fused_norm,
    gated_mlp,
    outer,
    renamed,
)

ALIBI_LAYERS = 40  # Baichuan 2 13B's


def _baichuan_to_nemo(hf: Fields, nemo: Out) -> None:
    if hf["num_hidden_layers"] == ALIBI_LAYERS:
        raise UnsupportedValueError(
            "it uses ALiBi, like all Baichuan models with 40 layers, which Megatron's attention does not support"
        )
    nemo["position_embedding_type"] = "rope"
    nemo["seq_length"] = hf.get("max_position_embeddings") or hf.get("model_max_length") or 4096


def _baichuan_to_hf(nemo: Fields, hf: Out) -> None:
    if nemo.get("position_embedding_type") != "rope":
        raise UnsupportedValueError(
            f"position_embedding_type is {nemo.get('position_embedding_type')!r}; it must be 'rope'"
        )
    heads = nemo["num_attention_heads"]
    if (nemo.get("num_query_groups") or heads) != heads:
        raise UnsupportedValueError(
            f"num_query_groups is {nemo['num_query_groups']}; it must equal num_attention_heads, {heads}"
        )
    hf["max_position_embeddings"] = hf["model_max_length"] = nemo["seq_length"]


BAICHUAN = ModelFamily(
    model_type="baichuan",
    architecture="BaichuanForCausalLM",
    model_class="Baichuan2Model",
    copies_tied=True,
    config_class="Baichuan2Config",
    parts=(
        *sizes(without=["max_position_embeddings"]),
        FieldFunctions(_baichuan_to_nemo, _baichuan_to_hf),
        NeverTied(),
        *GATED,
        DENSE,
        NO_BIAS,
        NO_QK_NORM,
        FULL_ROTARY,
        NO_WINDOW,
    ),
    rules=(
        *outer(),
        *INPUT_NORM,
        *MLP_NORM,
        *gated_mlp(),
        rule(HF + "self_attn.W_pack.weight", NEMO + "self_attention.linear_qkv.weight", PackedQkv()),
        rule(HF + "self_attn.o_proj.weight", NEMO + "self_attention.linear_proj.weight"),
    ),
    remote_code=True,
    refused="models with 40 layers (13B): Megatron does not support ALiBi",
    ignored=("z_loss_weight",),
    caveat="Baichuan 2's own code normalises the rows of the output layer, NeMo's model does not: logits differ",
)


def _glm_heads_to_nemo(hf: Fields, nemo: Out) -> None:
    heads = hf["num_attention_heads"]
    nemo["num_attention_heads"] = heads
    nemo["num_query_groups"] = hf["multi_query_group_num"] if hf.get("multi_query_attention", True) else heads
    nemo["kv_channels"] = hf.get("kv_channels") or hf["hidden_size"] // heads
    nemo["rotary_base"] = 10000.0 * hf.get("rope_ratio", 1)


def _glm_heads_to_hf(nemo: Fields, hf: Out) -> None:
    heads = nemo["num_attention_heads"]
    hf["num_attention_heads"], hf["multi_query_attention"] = heads, True
    hf["multi_query_group_num"] = nemo.get("num_query_groups") or heads
    hf["kv_channels"] = nemo.get("kv_channels") or nemo["hidden_size"] // heads
    hf["rope_ratio"] = nemo["rotary_base"] / 10000.0


GLM, GLM_LAYER = "transformer.encoder.", "transformer.encoder.layers.*."
CHATGLM = ModelFamily(
    model_type="chatglm",
    architecture="ChatGLMModel",
    model_class="ChatGLMModel",
    copies_tied=True,
    config_class="ChatGLMConfig",
    parts=(
        Field("num_layers", "num_layers"),
        Field("hidden_size", "hidden_size"),
        Field("ffn_hidden_size", "ffn_hidden_size"),
        FieldFunctions(_glm_heads_to_nemo, _glm_heads_to_hf),
        Field("padded_vocab_size", "vocab_size"),
        Field("seq_length", "seq_length"),
        Field("layernorm_epsilon", "layernorm_epsilon", 1e-5),
        Field("attention_dropout", "attention_dropout", 0.0),
        NeverTied(),
        HfIs("rmsnorm", True),
        HfIs("original_rope", True, written=False),
        HfIs("hidden_dropout", 0.0, written=False),
        HfIs("add_bias_linear", False),
        HfIs("add_qkv_bias", True),
        HfIs("post_layer_norm", True),
        HfIs("apply_residual_connection_post_layernorm", False),
        NemoIs(
            activation_func="silu",
            gated_linear_unit=True,
            normalization="RMSNorm",
            position_embedding_type="rope",
            rotary_percent=0.5,
            rotary_interleaved=True,
            add_bias_linear=False,
            add_qkv_bias=True,
        ),
        DENSE,
        NO_QK_NORM,
        NO_WINDOW,
    ),
    rules=(
        *outer("transformer.embedding.word_embeddings", GLM + "final_layernorm", "transformer.output_layer"),
        *fused_norm(GLM_LAYER + "input_layernorm", NEMO + "self_attention.linear_qkv"),
        *(
            rule(
                f"{GLM_LAYER}self_attention.query_key_value.{kind}",
                f"{NEMO}self_attention.linear_qkv.{kind}",
                PackedQkv(),
            )
            for kind in ("weight", "bias")
        ),
        *renamed(GLM_LAYER + "self_attention.dense", NEMO + "self_attention.linear_proj"),
        *fused_norm(GLM_LAYER + "post_attention_layernorm", NEMO + "mlp.linear_fc1"),
        *renamed(GLM_LAYER + "mlp.dense_h_to_4h", NEMO + "mlp.linear_fc1"),
        *renamed(GLM_LAYER + "mlp.dense_4h_to_h", NEMO + "mlp.linear_fc2"),
    ),
    remote_code=True,
    ignored=(
        "vocab_size",
        "bias_dropout_fusion",
        "apply_query_key_layer_scaling",
        "fp32_residual_connection",
        "quantization_bit",
        "pre_seq_len",
        "prefix_projection",
        "interleaved_qkv",
    ),
)
FAMILIES = (BAICHUAN, CHATGLM)
