"""Gemma, Code Gemma, Gemma 2, and the language model of Gemma 3."""

from __future__ import annotations

from nemolaunch.families.config_json import FULL
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    DENSE,
    FULL_ROTARY,
    NO_BIAS,
    NO_QK_NORM,
    NO_WINDOW,
    Derived,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    NemoSet,
    Out,
    UnsupportedValueError,
    alternating,
    rope_scaling_of,
    sizes,
    tied,
)
from nemolaunch.families.tables import (
    HF,
    INPUT_NORM,
    LLAMA,
    NEMO,
    attention,
    fused_norm,
    gated_mlp,
    outer,
    renamed,
)

NEMO_EPSILON = 1e-5
TANH_GELU = "gelu_pytorch_tanh"
COMMON = (
    HfIs("attention_bias", False),
    NemoIs(
        gated_linear_unit=True,
        normalization="RMSNorm",
        position_embedding_type="rope",
        layernorm_zero_centered_gamma=True,
    ),
    DENSE,
    NO_BIAS,
    FULL_ROTARY,
)


def _gelu_to_nemo(hf: Fields, nemo: Out) -> None:
    """Check for the approximation. Gemma's first files say "gelu", and later ones state what it means beside it."""
    named, meant = hf.get("hidden_act", TANH_GELU), hf.get("hidden_activation")
    if (meant or named) != TANH_GELU:
        raise UnsupportedValueError(
            f"hidden_act is {named!r} and hidden_activation {meant!r}; NeMo's model has {TANH_GELU!r}, which Gemma's "
            'own files mean even where they say "gelu": set "hidden_activation" to it if the model was trained with it'
        )


def _gelu_to_hf(nemo: Fields, hf: Out) -> None:
    hf["hidden_activation"] = hf["hidden_act"] = TANH_GELU


GEMMA_GELU = FieldFunctions(_gelu_to_nemo, _gelu_to_hf)
CAUSAL = HfIs("use_bidirectional_attention", False, None, written=False)


GEMMA = ModelFamily(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    model_class="GemmaModel",
    config_class="GemmaConfig",
    parts=(
        *sizes(head_dim=256),
        tied(True),
        GEMMA_GELU,
        CAUSAL,
        NemoIs(activation_func="openai_gelu"),
        *COMMON,
        NO_QK_NORM,
        NO_WINDOW,
    ),
    rules=LLAMA,
)


def _alternating_to_nemo(hf: Fields, nemo: Out) -> None:
    window = hf.get("sliding_window")
    if not window:
        raise UnsupportedValueError(
            f"sliding_window is {window}; NeMo's model has a window in every other layer"
        )
    Derived("layer_types", lambda hf: alternating(hf["num_hidden_layers"], 2)).to_nemo(hf, nemo)
    nemo["window_size"] = [window - 1, 0]


def _alternating_to_hf(nemo: Fields, hf: Out) -> None:
    if not nemo.get("window_size"):
        raise UnsupportedValueError(
            "window_size is not set; the Hugging Face model has a window in every other layer"
        )
    hf["sliding_window"] = nemo["window_size"][0] + 1


def _norms_differ(nemo: Fields) -> str | None:
    """Check the epsilon: NeMo 2.7 builds the norms after attention and MLP with TENorm's default."""
    epsilon = nemo["layernorm_epsilon"]
    if epsilon == NEMO_EPSILON:
        return None
    return f"NeMo's norms after attention and MLP have epsilon {NEMO_EPSILON}, Hugging Face's have {epsilon}"


POST_NORMS = (
    *outer(),
    *attention(),
    *INPUT_NORM,
    *gated_mlp(),
    *renamed(HF + "post_attention_layernorm", NEMO + "self_attention.linear_proj.post_layernorm"),
    *fused_norm(HF + "pre_feedforward_layernorm", NEMO + "mlp.linear_fc1"),
    *renamed(HF + "post_feedforward_layernorm", NEMO + "mlp.linear_fc2.post_layernorm"),
)
GEMMA2 = ModelFamily(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    model_class="Gemma2Model",
    config_class="Gemma2Config",
    parts=(
        *sizes(head_dim=256),
        tied(True),
        HfIs("hidden_activation", TANH_GELU),
        CAUSAL,
        Field("query_pre_attn_scalar", "query_pre_attn_scalar", 256),
        Field("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
        Field("final_logit_softcapping", "final_logit_softcapping", 30.0),
        FieldFunctions(_alternating_to_nemo, _alternating_to_hf),
        NemoIs(activation_func="openai_gelu"),
        *COMMON,
        NO_QK_NORM,
    ),
    rules=POST_NORMS,
    traits={"post_layer_norms": True},
    ignored=("hidden_act",),  # transformers uses hidden_activation
    caveat="NeMo's model has epsilon 1e-5 in the norms after attention and MLP, and windows in the even layers",
    computes_differently=_norms_differ,
)


def _positions_to_nemo(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind not in (None, "linear"):
        raise UnsupportedValueError(
            f"rope_scaling is of type {kind!r}; NeMo's model supports 'linear' or none"
        )
    nemo["rotary_base"] = [hf.get("rope_local_base_freq", 10000.0), hf.get("rope_theta", 1e6)]
    nemo["rope_scaling_factor"] = float(scaling["factor"]) if kind else 1.0


def _positions_to_hf(nemo: Fields, hf: Out) -> None:
    hf["rope_local_base_freq"], hf["rope_theta"] = nemo["rotary_base"]
    factor = nemo.get("rope_scaling_factor") or 1.0
    hf["rope_scaling"] = None if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _local_to_nemo(hf: Fields, nemo: Out) -> None:
    layers, kinds = hf["num_hidden_layers"], hf.get("layer_types")
    own, inherited = hf.get("sliding_window_pattern"), hf.get("_sliding_window_pattern")
    pattern = own or inherited or 6
    if kinds:
        pattern = kinds.index(FULL) + 1 if FULL in kinds else layers + 1
        if kinds != alternating(layers, pattern):
            raise UnsupportedValueError(
                f"layer_types is {kinds}; NeMo's model has full attention in every n-th layer"
            )
    nemo["interleaved_attn_pattern"] = [pattern - 1, 1]
    nemo["window_size"] = hf.get("sliding_window", 4096) - 1


def _local_to_hf(nemo: Fields, hf: Out) -> None:
    local, full = nemo["interleaved_attn_pattern"]
    if full != 1:
        raise UnsupportedValueError(
            f"interleaved_attn_pattern is [{local}, {full}]; the Hugging Face model has one full-attention layer in n"
        )
    hf["sliding_window"] = nemo["window_size"] + 1
    hf["layer_types"] = alternating(nemo["num_layers"], local + 1)


def _scale_to_nemo(hf: Fields, nemo: Out) -> None:
    scalar = hf.get("query_pre_attn_scalar", 256)
    nemo["softmax_scale"] = None if scalar == nemo["kv_channels"] else scalar**-0.5


def _scale_to_hf(nemo: Fields, hf: Out) -> None:
    scale = nemo.get("softmax_scale")
    hf["query_pre_attn_scalar"] = round(scale**-2, 6) if scale else nemo["kv_channels"]
    if hf["query_pre_attn_scalar"] == int(hf["query_pre_attn_scalar"]):
        hf["query_pre_attn_scalar"] = int(hf["query_pre_attn_scalar"])


def _gemma3_class(hf: Fields) -> str:
    """Choose the class by the number of layers, as NeMo does; the base class has no `rope_scaling_factor`."""
    return {34: "Gemma3Config4B", 48: "Gemma3Config12B", 62: "Gemma3Config27B"}.get(
        hf["num_hidden_layers"], "Gemma3Config1B"
    )


GEMMA3_PARTS = (
    *sizes(head_dim=256, without=["rope_theta"]),
    tied(True),
    HfIs("hidden_activation", TANH_GELU),
    HfIs("final_logit_softcapping", None),
    HfIs("attn_logit_softcapping", None),
    CAUSAL,
    FieldFunctions(_positions_to_nemo, _positions_to_hf),
    FieldFunctions(_local_to_nemo, _local_to_hf),
    FieldFunctions(_scale_to_nemo, _scale_to_hf),
    NemoIs(activation_func="gelu"),
    NemoSet(is_vision_language=False),  # without vision it masks like any other model
    *COMMON,
)
GEMMA3 = tuple(
    ModelFamily(
        model_type=model_type,
        architecture="Gemma3ForCausalLM",
        model_class="Gemma3Model",
        config_class=_gemma3_class,
        parts=GEMMA3_PARTS,
        rules=POST_NORMS,
        traits={"post_layer_norms": True, "qk_layernorm": True},
        ignored=("hidden_act",),
        caveat="NeMo's model has epsilon 1e-5 in the norms after attention and MLP",
        computes_differently=_norms_differ,
        prefixes=("model.language_model.", "language_model."),
    )
    for model_type in ("gemma3_text", "gemma3")
)
FAMILIES = (GEMMA, GEMMA2, *GEMMA3)
