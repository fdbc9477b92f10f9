"""Llama 1 to 3.3, Code Llama, and the Llama-Nemotron models that are published as Llama models."""

from __future__ import annotations

from nemolaunch.errors import NemolaunchError
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.parts import (
    DENSE,
    FULL_ROTARY,
    GATED,
    LINEAR_SCALING,
    NO_QK_NORM,
    NO_WINDOW,
    FieldFunctions,
    Fields,
    HfIs,
    Out,
    UnsupportedValueError,
    rope_scaling_of,
    sizes,
    tied,
)
from nemolaunch.families.tables import LLAMA

# Fields of config.json's rope_scaling -> fields of NeMo's Llama31Config
LLAMA3_SCALING = {
    "factor": "scale_factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "old_context_len",
}


def _scaling_to_nemo(hf: Fields, nemo: Out) -> None:
    kind, scaling = rope_scaling_of(hf)
    if kind == "llama3":
        nemo.update({ours: scaling[theirs] for theirs, ours in LLAMA3_SCALING.items()})
    else:
        LINEAR_SCALING.to_nemo(hf, nemo)


def _scaling_to_hf(nemo: Fields, hf: Out) -> None:
    if nemo.get("scale_factor") is None:
        LINEAR_SCALING.to_hf(nemo, hf)
    else:
        hf["rope_scaling"] = {
            "rope_type": "llama3",
            **{theirs: nemo[ours] for theirs, ours in LLAMA3_SCALING.items()},
        }


def _biases_to_nemo(hf: Fields, nemo: Out) -> None:
    attention, mlp = bool(hf.get("attention_bias")), bool(hf.get("mlp_bias"))
    if attention != mlp:
        raise UnsupportedValueError(
            f"attention_bias is {attention} and mlp_bias {mlp}; NeMo's model has biases in all linear layers, "
            "in the query, key and value projections only, or in none"
        )
    nemo["add_bias_linear"] = attention


def _biases_to_hf(nemo: Fields, hf: Out) -> None:
    if nemo.get("add_qkv_bias"):
        raise UnsupportedValueError(
            "add_qkv_bias is True; a Hugging Face Llama cannot have biases in only these projections"
        )
    hf["attention_bias"] = hf["mlp_bias"] = bool(nemo.get("add_bias_linear"))


def _llama_class(hf: Fields) -> str:
    return "Llama31Config" if rope_scaling_of(hf)[0] == "llama3" else "LlamaConfig"


def _nemotron_class(hf: Fields) -> str:
    if rope_scaling_of(hf)[0] != "llama3":
        raise NemolaunchError(
            "LlamaNemotronModel always has rope_scaling of type llama3, which the source does not have"
        )
    return "Llama31NemotronNano8BConfig" if hf["num_hidden_layers"] == 32 else "Llama31Nemotron70BConfig"


PARTS = (
    *sizes(),
    tied(),
    FieldFunctions(_scaling_to_nemo, _scaling_to_hf),
    FieldFunctions(_biases_to_nemo, _biases_to_hf),
    *GATED,
    DENSE,
    NO_QK_NORM,
    FULL_ROTARY,
    NO_WINDOW,
    HfIs("rope_interleaved", False, written=False),
)

LLAMA_FAMILY = ModelFamily(
    model_type="llama",
    architecture="LlamaForCausalLM",
    model_class="LlamaModel",
    also={"LlamaNemotronModel": _nemotron_class},
    config_class=_llama_class,
    parts=PARTS,
    rules=LLAMA,
    refused="rope_scaling of types other than llama3 and linear; biases only in the attention",
)
FAMILIES = (LLAMA_FAMILY,)
