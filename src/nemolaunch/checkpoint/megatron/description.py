"""The model of a checkpoint that is moved, in the words of either framework: every model that both train.

Hugging Face is not asked: a class of Bridge's stands for the class of NeMo's with the same code, and fields have the
same names but for those that `nemolaunch.catalogue.bridge_models.in_bridge` renames for a training as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue import bridge_settings
from nemolaunch.catalogue.bridge_models import FIXED_ROPE_SCALING, in_bridge, provider_of
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts import bridge_model
from nemolaunch.facts.bridge_model import ACTIVATIONS, BIDIRECTIONAL, UNUSED
from nemolaunch.facts.bridge_run_config import RunConfig
from nemolaunch.families.bridge_classes import BLOCK
from nemolaunch.families.nemo_config import NemoConfig, defaults, symbol, symbol_name, symbol_path
from nemolaunch.run.folder import RunDir, read_json

# A class of Bridge's configuration -> NeMo's class of the model, and a class of its configuration with all fields
CLASSES = {
    "GemmaModelProvider": ("GemmaModel", "GemmaConfig"),
    "Gemma2ModelProvider": ("Gemma2Model", "Gemma2Config"),
    "Gemma3ModelProvider": ("Gemma3Model", "Gemma3Config1B"),
    "HybridModelProvider": ("MambaModel", "SSMConfig"),
    "Llama4Provider": ("LlamaModel", "Llama4Config"),
    "MLAModelProvider": ("DeepSeekModel", "DeepSeekConfig"),
}
GPT3 = ("GPTModel", "GPTConfig")  # Megatron's own model, which has the fields of any
# Classes of NeMo's models whose code is another's; only a run's plan tells them apart
NAMED = ("GPTModel", "LlamaNemotronModel")
NEMOTRON_H = "NemotronHConfigBase"
# Fields of `UNUSED` that models of a class do use
USED = {"Llama4Provider": ("qk_l2_norm",), "MLAModelProvider": ("rotary_scaling_factor",)}
NEMOS_ACTIVATIONS = "nemo.collections.llm.fn.activation."  # Megatron has them under the same names
# A function of Bridge's -> what models of a class have in NeMo for it
FUNCTIONS = {
    ("GemmaModel", "fast_gelu"): f"{NEMOS_ACTIVATIONS}openai_gelu",
    ("Gemma2Model", "fast_gelu"): f"{NEMOS_ACTIVATIONS}openai_gelu",
    ("MambaModel", "squared_relu"): f"{NEMOS_ACTIVATIONS}squared_relu",
}
# Fields that the result has whatever else decides them in a training
SIZES = ("vocab_size", "seq_length", "params_dtype", "fp16", "bf16")
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
# Fields that Bridge's configuration lacks or has another type for, and that choose kernels
KERNELS = {"attention_backend", "moe_extended_tp", "moe_use_legacy_grouped_gemm"}


def to_bridge(config: NemoConfig) -> dict[str, Any]:
    """Return the `model` section of a `run_config.yaml` for a NeMo configuration.

    Raises `NemolaunchError` if Bridge cannot represent the model.
    """
    provider = provider_of(config.model_class, config.config_class)
    if provider is None:
        raise NemolaunchError(f"Megatron-Bridge has no class for NeMo's {config.model_class}")
    fields = config.resolved
    found = in_bridge(config.model_class, fields)
    activation = str(symbol_path(found.get("activation_func")))
    activation = activation.replace(NEMOS_ACTIVATIONS, "megatron.core.activations.")
    known = bridge_settings.model_fields(provider)
    faults = list(_faults(fields, found, known))
    if activation not in ACTIVATIONS:
        faults.append(f"its activation function is {activation}")
    if faults:
        raise NemolaunchError(f"Megatron-Bridge cannot represent this model: {', '.join(faults)}")
    model = {name: value for name, value in found.items() if name in known - KERNELS}
    size = {name: fields[name] for name in SIZES if name in fields}
    if config.model_class == "MambaModel":
        size.pop("vocab_size", None)  # NeMo pads the tokenizer's size, whatever its configuration says
    function: dict[str, Any] = {"activation_func": symbol(activation)}
    if bidirectional.is_bidirectional(fields):
        function["transformer_layer_spec"] = symbol(BIDIRECTIONAL)
    elif fields.get("multi_latent_attention"):
        function["transformer_layer_spec"] = layer_spec(BLOCK)
    return {"_target_": provider, **model, **function, **size, **dict.fromkeys(LAYOUT, 1)}


def _faults(fields: Mapping[str, Any], found: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    yield from rope_faults(fields)
    for name, value in sorted(found.items()):
        if name not in known | KERNELS and value not in (None, False):
            yield f"Bridge has no field for {name}={value!r}"


def layer_spec(path: str) -> dict[str, Any]:
    """Return the function at a path that makes a model's layers, as Bridge records it."""
    partial = {"_partial_": True, "_args_": [], "use_transformer_engine": True}
    return {"_target_": path, **partial} if path == BLOCK else symbol(path)


def rope_faults(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the frequencies of a NeMo model have that Megatron-Core cannot be told."""
    if fields.get("scale_factor") is not None:
        for name, value in FIXED_ROPE_SCALING.items():
            if fields.get(name) != value:
                yield f"{name} is {fields.get(name)!r}, and Megatron-Core has {value!r} fixed in its code"


def to_nemo(checkpoint: Path, described: RunConfig) -> NemoConfig:
    """Return NeMo's configuration of the model that a checkpoint of Bridge's describes.

    Raises `NemolaunchError` if NeMo does not have this model.
    """
    provider = described.provider
    classes = CLASSES.get(provider) or _planned(checkpoint)
    if classes is not None:
        return of_class(classes, provider, described.model)
    try:
        return bridge_model.model_in(checkpoint, described)
    except NemolaunchError:
        if provider != "GPTModelProvider" or bridge_model.own_layers(described.model):
            raise
    return of_class(GPT3, provider, described.model)


def of_class(classes: tuple[str, str], provider: str, fields: Mapping[str, Any]) -> NemoConfig:
    """Return NeMo's configuration of a model with Bridge's fields; `classes` are those of the model and of its fields.

    Raises `NemolaunchError` if the model has something that NeMo's does not.
    """
    activation = symbol_path(fields.get("activation_func"))
    used = [
        f"{name} is {fields[name]!r}"
        for name, value in UNUSED.items()
        if fields.get(name, value) != value and name not in USED.get(provider, ())
    ]
    if activation not in ACTIVATIONS:
        used.append(f"activation_func is {activation!r}")
    model_class, name = classes
    if model_class == "MambaModel" and symbol_name(fields.get("activation_func")) == "squared_relu":
        name = NEMOTRON_H
    known = defaults(name)
    rope = bridge_model.rope_to_nemo(fields)
    if rope and not known.keys() & {"scale_factor", "rope_scaling"}:
        used.append(f"rope_scaling_factor is {fields.get('rope_scaling_factor')!r}")
    if used:
        raise NemolaunchError(f"{', '.join(used)}, which NeMo's {classes[0]} does not have")
    found = {n: v for n, v in fields.items() if n in known and not isinstance(v, Mapping)}
    if fields.get("hybrid_layer_pattern"):
        found["hybrid_override_pattern"] = fields["hybrid_layer_pattern"]
    if model_class == "MambaModel":
        found.pop("vocab_size", None)
    if model_class == "Gemma3Model":
        found.pop("qk_layernorm", None)  # NeMo's layers have these norms, and its field is not asked
        if isinstance(found.get("window_size"), int):
            found["window_size"] -= 1  # Bridge counts the current token
    found |= {n: v for n, v in rope.items() if n in known}
    found |= bridge_model.dtype(fields)
    own = FUNCTIONS.get((model_class, str(symbol_name(fields["activation_func"]))))
    found["activation_func"] = symbol(own) if own else fields["activation_func"]
    return NemoConfig(model_class, name, found)


def _planned(checkpoint: Path) -> tuple[str, str] | None:
    """Return NeMo's classes by the plan of the run that a checkpoint is in, if nothing else tells them."""
    plan = read_json(RunDir(checkpoint.resolve().parent.parent).plan) or {}
    try:
        recipe = catalogue.recipe(str(plan.get("recipe")))
    except NemolaunchError:
        return None
    return (recipe.model_class, recipe.config_class) if recipe.model_class in NAMED else None
