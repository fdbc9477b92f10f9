"""The language model of Llama 4: experts in all or every other layer, some layers without rotary positions."""

from __future__ import annotations

from nemolaunch.families.family import ModelFamily
from nemolaunch.families.ops import StackedExperts
from nemolaunch.families.parts import (
    FULL_ROTARY,
    NO_BIAS,
    Derived,
    Field,
    FieldFunctions,
    Fields,
    HfIs,
    NemoIs,
    Out,
    UnsupportedValueError,
    rope_scaling_of,
    sizes,
    tied,
)
from nemolaunch.families.rules import rule
from nemolaunch.families.tables import (
    EXPERTS_NORM,
    HF,
    INPUT_NORM,
    MLP_NORM,
    NEMO,
    attention,
    gated_mlp,
    outer,
    renamed,
)

# Constants of NeMo's rotary embedding; only the factor can be set (megatron.core RotaryEmbedding)
SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def _layer_types(hf: Fields) -> list[str]:
    rotated = hf.get("no_rope_layers") or _rotated(
        hf["num_hidden_layers"], hf.get("no_rope_layer_interval", 4)
    )
    return ["chunked_attention" if one else "full_attention" for one in rotated]


def _moe_layers(hf: Fields) -> list[int]:
    step = hf.get("interleave_moe_layer_step", 1)
    return list(range(step - 1, hf["num_hidden_layers"], step))


def _mlp_to_nemo(hf: Fields, nemo: Out) -> None:
    step, layers = hf.get("interleave_moe_layer_step", 1), hf["num_hidden_layers"]
    nemo["moe_layer_freq"] = 1 if step == 1 else [int((layer + 1) % step == 0) for layer in range(layers)]
    nemo["ffn_hidden_size"] = hf.get("intermediate_size_mlp", 16384)
    nemo["moe_ffn_hidden_size"] = nemo["moe_shared_expert_intermediate_size"] = hf["intermediate_size"]


def _mlp_to_hf(nemo: Fields, hf: Out) -> None:
    frequency = nemo.get("moe_layer_freq") or 1
    step = frequency if isinstance(frequency, int) else len(frequency) // max(sum(frequency), 1)
    layers = range(nemo["num_layers"])
    if isinstance(frequency, list) and frequency != [int((layer + 1) % step == 0) for layer in layers]:
        raise UnsupportedValueError(
            f"moe_layer_freq is {frequency}; the Hugging Face model has experts in every n-th layer"
        )
    if nemo["moe_ffn_hidden_size"] != nemo["moe_shared_expert_intermediate_size"]:
        raise UnsupportedValueError(
            f"moe_ffn_hidden_size is {nemo['moe_ffn_hidden_size']} and moe_shared_expert_intermediate_size "
            f"{nemo['moe_shared_expert_intermediate_size']}; the Hugging Face model has one size for both"
        )
    hf["interleave_moe_layer_step"] = step
    hf["intermediate_size_mlp"], hf["intermediate_size"] = (
        nemo["ffn_hidden_size"],
        nemo["moe_ffn_hidden_size"],
    )


def _rope_to_nemo(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind not in (None, "llama3"):
        raise UnsupportedValueError(
            f"rope_scaling is of type {kind!r}; NeMo's model supports 'llama3' or none"
        )
    different = {
        name: scaling[name] for name, value in SCALING.items() if kind and scaling.get(name, value) != value
    }
    if different:
        raise UnsupportedValueError(f"rope_scaling has {different}; NeMo's model has {SCALING}")
    nemo["rope_scaling"] = kind is not None
    if kind:
        nemo["rope_scaling_factor"] = scaling["factor"]


def _rope_to_hf(nemo: Fields, hf: Out) -> None:
    hf["rope_scaling"] = None
    if nemo.get("rope_scaling"):
        hf["rope_scaling"] = {"rope_type": "llama3", "factor": nemo["rope_scaling_factor"], **SCALING}


def _no_rope_to_nemo(hf: Fields, nemo: Out) -> None:
    listed, layers = hf.get("no_rope_layers") or [], hf["num_hidden_layers"]
    interval = hf.get("no_rope_layer_interval", 4)
    if listed:
        interval = listed.index(0) + 1 if 0 in listed else layers + 1
        if listed != _rotated(layers, interval):
            raise UnsupportedValueError(
                f"no_rope_layers is {listed}; NeMo's model omits rotary positions in every n-th layer"
            )
    nemo["nope_layer_interval"] = interval


def _no_rope_to_hf(nemo: Fields, hf: Out) -> None:
    layers = nemo["num_layers"]
    hf["no_rope_layers"] = _rotated(layers, nemo.get("nope_layer_interval") or layers + 1)


def _rotated(layers: int, interval: int) -> list[int]:
    return [int((layer + 1) % interval != 0) for layer in range(layers)]


def _computes_differently(nemo: Fields) -> str | None:
    """Check for scaling, which NeMo 2.7's configure_model does not pass to Megatron's rotary embedding."""
    return "NeMo's Llama 4 ignores rope_scaling" if nemo.get("rope_scaling") else None


FEED = HF + "feed_forward."
RULES = (
    *outer(),
    *attention(),
    *INPUT_NORM,
    *MLP_NORM,
    *EXPERTS_NORM,
    *gated_mlp(FEED),
    *renamed(FEED + "router", NEMO + "mlp.router"),
    *gated_mlp(FEED + "shared_expert.", NEMO + "mlp.shared_experts."),
    rule(FEED + "experts.gate_up_proj", NEMO + "mlp.experts.linear_fc1.weight#", StackedExperts()),
    rule(FEED + "experts.down_proj", NEMO + "mlp.experts.linear_fc2.weight#", StackedExperts()),
)
PARTS = (
    *sizes(norm_default=1e-5, rope_theta=500000.0, head_dim=128, without=["intermediate_size"]),
    tied(),
    FieldFunctions(_mlp_to_nemo, _mlp_to_hf),
    FieldFunctions(_rope_to_nemo, _rope_to_hf),
    FieldFunctions(_no_rope_to_nemo, _no_rope_to_hf),
    Field("num_local_experts", "num_moe_experts", 16),
    Field("num_experts_per_tok", "moe_router_topk", 1),
    Field("use_qk_norm", "qk_l2_norm", True),
    Field("attention_chunk_size", "attention_chunk_size", 8192),
    HfIs("attention_bias", False),
    HfIs("hidden_act", "silu"),
    HfIs("router_jitter_noise", 0.0, written=False),
    # Queries are scaled only beyond position 8192, see the caveat
    HfIs("attn_temperature_tuning", True, 4, False, written=False),
    HfIs("floor_scale", 8192, written=False),
    HfIs("attn_scale", 0.1, written=False),
    Derived("layer_types", lambda hf: _layer_types(hf)),
    Derived("moe_layers", lambda hf: _moe_layers(hf)),
    NemoIs(activation_func="silu", gated_linear_unit=True, normalization="RMSNorm", qk_layernorm=False),
    NemoIs(moe_router_score_function="sigmoid", moe_apply_probs_on_input=True, rotary_interleaved=True),
    NO_BIAS,
    FULL_ROTARY,
    NemoIs(window_size=None),
)


FAMILIES = tuple(
    ModelFamily(
        model_type=model_type,
        architecture="Llama4ForCausalLM",
        model_class="LlamaModel",
        config_class="Llama4Config",
        parts=PARTS,
        rules=RULES,
        prefixes=("language_model.",),
        ignored=("router_aux_loss_coef", "for_llm_compressor"),
        refused="no_rope_layers other than every n-th layer",
        caveat="NeMo's model ignores rope_scaling and does not scale queries beyond position 8192",
        computes_differently=_computes_differently,
    )
    for model_type in ("llama4_text", "llama4")
)
