"""The model that a checkpoint of Megatron-Bridge describes, in NeMo's terms.

Both configurations are Megatron-Core's, under the same names; what differs is here. Bridge's does not say which model
of the Hub it is, so that is found by what the fields say: all families that have the same fields compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue.bridge_models import FIXED_ROPE_SCALING
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.bridge_run_config import RunConfig
from nemolaunch.families.bridge_classes import OWN_LAYERS, WRITTEN
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.nemo_config import (
    BIDIRECTIONAL_LAYERS,
    NemoConfig,
    defaults,
    symbol,
    symbol_name,
    symbol_path,
)
from nemolaunch.families.registry import FAMILIES, of_nemo
from nemolaunch.run.folder import BRIDGE_TOKENIZER, RunDir, read_json

# Bridge's configuration classes -> the families that they can be
PROVIDERS = {
    **{
        one.name: tuple(n for n, other in WRITTEN.items() if other.name == one.name)
        for one in WRITTEN.values()
    },
    "MistralModelProvider": ("mistral",),
    "GemmaModelProvider": ("gemma",),
    "Gemma2ModelProvider": ("gemma2",),
}
# Families for which Bridge has a function of another name that computes the same: GELU by tanh
OTHER_GELU = ("gemma", "gemma2")
# Our layers that attend to both sides, by which a checkpoint says that its model does
BIDIRECTIONAL = "nemolaunch.bridge.bidirectional.layers"
# Fields that NeMo's configuration lacks, or that few families look at, and that change what a model computes -> their
# value if it does not use them
UNUSED: dict[str, Any] = {
    "activation_func_clamp_value": None,
    "attention_output_gate": False,
    "experimental_attention_variant": None,
    "glu_linear_offset": 0.0,
    "heterogeneous_block_specs": False,
    "linear_attention_freq": None,
    "moe_latent_size": None,
    "moe_router_force_biased": None,
    "moe_shared_expert_gate": False,
    "no_rope_freq": None,
    "qk_l2_norm": False,
    "rotary_scaling_factor": None,
    "softmax_type": "vanilla",
    "use_mup": False,
    "yarn_rotary_scaling_factor": None,
}
# What an activation function may be called in a checkpoint. Other functions and classes that its configuration names
# are not taken from there: nothing that a file names is ever imported
ACTIVATIONS = {
    "torch.nn.functional.gelu",
    "torch.nn.functional.relu",
    "torch.nn.functional.silu",
    "torch._C._nn.gelu",
    "megatron.core.activations.fast_gelu",
    "megatron.core.activations.quick_gelu",
    "megatron.core.fusions.fused_bias_geglu.quick_gelu",
    "megatron.core.activations.squared_relu",
}
DTYPES = {"torch.bfloat16", "torch.float16", "torch.float32"}


def model_in(checkpoint: Path, described: RunConfig) -> NemoConfig:
    """Return the configuration of a checkpoint's model, which its `run_config.yaml` describes.

    Raises `NemolaunchError` if no family can be this model.
    """
    return to_nemo(described.provider, described.model, _likely_type(checkpoint))


def _likely_type(checkpoint: Path) -> str | None:
    """Return the `model_type` of the plan, if the checkpoint is in a run of nemolaunch's, or beside the tokenizer."""
    plan = read_json(RunDir(checkpoint.resolve().parent.parent).plan) or {}
    try:
        recipe = catalogue.recipe(str(plan.get("recipe")))
        return of_nemo(NemoConfig(recipe.model_class, recipe.config_class)).model_type
    except NemolaunchError:
        found = (read_json(checkpoint / BRIDGE_TOKENIZER / "config.json") or {}).get("model_type")
        return found if isinstance(found, str) else None


def to_nemo(provider: str, fields: Mapping[str, Any], likely: str | None = None) -> NemoConfig:
    """Return NeMo's configuration of the model that Bridge's describes.

    Args:
        provider: the name of Bridge's class.
        likely: the family to prefer if several fit.

    Raises `NemolaunchError` if no family can be this model.
    """
    types = PROVIDERS.get(provider)
    if types is None:
        raise NemolaunchError(
            f"the model is described by Bridge's {provider}, which nemolaunch does not read; it reads "
            f"{', '.join(PROVIDERS)}. Export it with Bridge's own AutoBridge.export_ckpt"
        )
    own = own_layers(fields)
    if provider != "OlMoEModelProvider":  # whose layers these are anyway
        types = (own,) if own else tuple(name for name in types if name not in OWN_LAYERS.values())
    activation = symbol_path(fields.get("activation_func"))
    if activation not in ACTIVATIONS:
        raise NemolaunchError(
            f"activation_func is {activation!r}, which no model that nemolaunch converts has"
        )
    used = {name for name, value in UNUSED.items() if fields.get(name, value) != value}
    faults = []
    for family in (FAMILIES[name] for name in sorted(types, key=lambda name: name != likely)):
        config = _as(family, fields)
        try:
            if of_nemo(config) is not family:
                continue
            family.to_hf(config)
            ignored = sorted(used - family.fields_read(config))
            if not ignored:
                return config
            listed = ", ".join(f"{name} is {fields[name]!r}" for name in ignored)
            faults.append(f"{listed}, which {family.model_type} does not have")
        except NemolaunchError as error:
            faults.append(str(error))
    raise NemolaunchError(
        "no model that nemolaunch converts has this configuration:\n" + _fewest_lines(faults)
    )


def own_layers(fields: Mapping[str, Any]) -> str | None:
    """Return the family whose own layers a model has; None if they are Megatron's."""
    return OWN_LAYERS.get(str(symbol_path(fields.get("transformer_layer_spec"))))


def _as(family: ModelFamily, fields: Mapping[str, Any]) -> NemoConfig:
    rope = rope_to_nemo(fields)
    name = family.config_class
    if not isinstance(name, str):
        name = "Llama31Config" if rope else "LlamaConfig"
    if fields.get("hybrid_layer_pattern"):  # Megatron-LM's arguments have it for every model
        name = "HybridModelProvider"
        fields = {**fields, "hybrid_override_pattern": fields["hybrid_layer_pattern"]}
    known = defaults(name)
    plain = {n: v for n, v in fields.items() if n in known and not isinstance(v, Mapping)}
    function = {"activation_func": fields.get("activation_func")}
    if family.model_type in OTHER_GELU and symbol_name(function["activation_func"]) == "fast_gelu":
        function["activation_func"] = symbol("nemo.collections.llm.fn.activation.openai_gelu")
    both_sides = symbol_path(fields.get("transformer_layer_spec")) == BIDIRECTIONAL
    layers = {"transformer_layer_spec": symbol(BIDIRECTIONAL_LAYERS)} if both_sides else {}
    return NemoConfig(family.model_class, name, {**plain, **dtype(fields), **function, **rope, **layers})


def dtype(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the type of the weights as a field of NeMo's configuration; nothing if no such type is named."""
    found = fields.get("params_dtype")
    return {"params_dtype": found} if symbol_path(found) in DTYPES else {}


def rope_to_nemo(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scaling of rotary frequencies of Llama 3.1 as fields of NeMo's; nothing if there is none."""
    if not fields.get("rope_scaling"):
        return {}
    return {"scale_factor": fields.get("rope_scaling_factor"), **FIXED_ROPE_SCALING}


def _fewest_lines(faults: list[str]) -> str:
    """Return the message of the family that is nearest to the configuration."""
    return min(faults, key=lambda text: text.count("\n"), default="")
