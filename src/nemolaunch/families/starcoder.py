"""StarCoder (GPT BigCode) and StarCoder 2."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    DENSE,
    LINEAR_SCALING,
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
    SlidingWindow,
    UnsupportedValueError,
    same_dropout,
    sizes,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    HF,
    INPUT_NORM,
    MLP_NORM,
    NEMO,
    attention,
    fused_norm,
    outer,
    renamed,
)

TANH_GELU, EXACT_GELU = "gelu_pytorch_tanh", "gelu"


class Gelu:
    """A GELU: in Megatron the fused one is the tanh approximation, and the plain one of the same name is exact."""

    def __init__(self, field: str) -> None:
        self.field = field

    def to_nemo(self, hf: Fields, nemo: Out) -> None:
        """Set fields of `nemo` from `hf`."""
        activation = hf.get(self.field, TANH_GELU)
        if activation not in (TANH_GELU, EXACT_GELU):
            raise UnsupportedValueError(
                f"{self.field} is {activation!r}; NeMo's model supports {TANH_GELU!r} and {EXACT_GELU!r}"
            )
        nemo["bias_activation_fusion"] = activation == TANH_GELU

    def to_hf(self, nemo: Fields, hf: Out) -> None:
        """Set fields of `hf` from `nemo`."""
        fused = nemo.get("bias_activation_fusion") and nemo.get("add_bias_linear")
        hf[self.field] = TANH_GELU if fused else EXACT_GELU


COMMON = (
    NemoIs(
        activation_func="gelu",
        gated_linear_unit=False,
        normalization="LayerNorm",
        layernorm_zero_centered_gamma=False,
    ),
    DENSE,
    NO_QK_NORM,
)


def _heads_to_nemo(hf: Fields, nemo: Out) -> None:
    nemo["num_attention_heads"] = hf["n_head"]
    nemo["num_query_groups"] = 1 if hf.get("multi_query", True) else hf["n_head"]
    nemo["ffn_hidden_size"] = hf.get("n_inner") or 4 * hf["n_embd"]


def _heads_to_hf(nemo: Fields, hf: Out) -> None:
    heads = nemo["num_attention_heads"]
    groups = nemo.get("num_query_groups") or heads
    if groups not in (1, heads):
        raise UnsupportedValueError(
            f"num_query_groups is {groups}; the Hugging Face model has 1, or one per head"
        )
    if (nemo.get("kv_channels") or nemo["hidden_size"] // heads) * heads != nemo["hidden_size"]:
        raise UnsupportedValueError(
            f"kv_channels is {nemo['kv_channels']}; the Hugging Face model has hidden_size / heads"
        )
    hf["n_head"], hf["multi_query"] = heads, groups == 1
    hf["n_inner"] = nemo.get("ffn_hidden_size") or 4 * nemo["hidden_size"]


BIGCODE = "transformer.h.*."
STARCODER = ModelFamily(
    model_type="gpt_bigcode",
    architecture="GPTBigCodeForCausalLM",
    model_class="StarcoderModel",
    copies_tied=True,
    config_class="StarcoderConfig",
    parts=(
        Field("n_layer", "num_layers"),
        Field("n_embd", "hidden_size"),
        FieldFunctions(_heads_to_nemo, _heads_to_hf),
        Field("vocab_size", "vocab_size"),
        Field("n_positions", "seq_length", 1024),
        Field("initializer_range", "init_method_std", 0.02),
        Field("layer_norm_epsilon", "layernorm_epsilon", 1e-5),
        Field("resid_pdrop", "hidden_dropout", 0.1),
        Field("attn_pdrop", "attention_dropout", 0.1),
        same_dropout("embd_pdrop", "resid_pdrop"),
        HfIs("scale_attn_weights", True, written=False),
        HfIs("add_cross_attention", False, written=False),
        NeverTied(),
        Gelu("activation_function"),
        NemoIs(add_bias_linear=True, position_embedding_type="learned_absolute"),
        *COMMON,
        NO_WINDOW,
    ),
    rules=(
        *outer("transformer.wte", "transformer.ln_f"),
        rule("transformer.wpe.weight", "embedding.position_embeddings.weight"),
        *fused_norm(BIGCODE + "ln_1", NEMO + "self_attention.linear_qkv"),
        *renamed(BIGCODE + "attn.c_attn", NEMO + "self_attention.linear_qkv"),
        *renamed(BIGCODE + "attn.c_proj", NEMO + "self_attention.linear_proj"),
        *fused_norm(BIGCODE + "ln_2", NEMO + "mlp.linear_fc1"),
        *renamed(BIGCODE + "mlp.c_fc", NEMO + "mlp.linear_fc1"),
        *renamed(BIGCODE + "mlp.c_proj", NEMO + "mlp.linear_fc2"),
    ),
    ignored=(
        "scale_attention_softmax_in_fp32",
        "attention_softmax_in_fp32",
        "inference_runner",
        "validate_runner_input",
        "pre_allocate_kv_cache",
        "max_sequence_length",
        "max_batch_size",
        "n_ctx",
        "num_key_value_heads",
        "intermediate_size",
        "reorder_and_upcast_attn",
    ),
)

STARCODER2 = ModelFamily(
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    model_class="Starcoder2Model",
    copies_tied=True,
    config_class="Starcoder2Config",
    parts=(
        *sizes(norm="norm_epsilon", norm_default=1e-5),
        Field("residual_dropout", "hidden_dropout", 0.0),
        same_dropout("embedding_dropout", "residual_dropout"),
        HfIs("norm_type", "layer_norm", written=False),
        HfIs("mlp_type", "default", written=False),
        Field("use_bias", "add_bias_linear", True),
        NeverTied(),
        Gelu("hidden_act"),
        SlidingWindow(),
        LINEAR_SCALING,
        NemoIs(position_embedding_type="rope", add_qkv_bias=False, rotary_percent=1.0),
        *COMMON,
    ),
    rules=(
        *outer(),
        *attention(),
        *INPUT_NORM,
        *MLP_NORM,
        *renamed(HF + "mlp.c_fc", NEMO + "mlp.linear_fc1"),
        *renamed(HF + "mlp.c_proj", NEMO + "mlp.linear_fc2"),
    ),
    refused=OTHER_ROPE,
)
FAMILIES = (STARCODER, STARCODER2)
