"""The model's configuration that Bridge needs in a checkpoint, from NeMo's; see `nemolaunch.facts.bridge_model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nemolaunch.catalogue import bridge_settings
from nemolaunch.catalogue.bridge_models import FIXED_ROPE_SCALING, in_bridge, provider_of
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.bridge_model import ACTIVATIONS, BIDIRECTIONAL, PLAIN
from nemolaunch.families.nemo_config import NemoConfig, symbol, symbol_path
from nemolaunch.families.registry import of_nemo

NEMOS_ACTIVATIONS = "nemo.collections.llm.fn.activation."  # Megatron has them under the same names
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
# Fields that are in the result whatever else decides them in a training
SIZES = ("vocab_size", "seq_length", "params_dtype", "fp16", "bf16")
# Fields that Bridge's configuration lacks and that choose kernels, or how they exchange numbers
KERNELS = {"attention_backend", "moe_extended_tp", "moe_use_legacy_grouped_gemm"}
# Our layers of multi-latent attention, which Bridge records in the checkpoints of a training
LATENT = "nemolaunch.bridge.latent.layers"


def check_import(config: NemoConfig) -> None:
    """Raise `NemolaunchError` unless Hugging Face models of this kind are converted to Bridge."""
    family = of_nemo(config)
    if family.model_type not in PLAIN:
        raise NemolaunchError(
            f"there is no conversion of {family.model_type} to Megatron-Bridge; there is one of {', '.join(PLAIN)}. "
            "Convert it with Bridge's own AutoBridge.import_ckpt"
        )
    to_bridge(config)


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
    faults = [*_rope_faults(fields)]
    if activation not in ACTIVATIONS:
        faults.append(f"its activation function is {activation}")
    known = bridge_settings.model_fields(provider)
    faults += [
        f"Bridge has no field for {name}={value!r}"
        for name, value in sorted(found.items())
        if name not in known | KERNELS and value not in (None, False)
    ]
    if faults:
        raise NemolaunchError(f"Megatron-Bridge cannot represent this model: {', '.join(faults)}")
    model = {name: value for name, value in found.items() if name in known - KERNELS}
    size = {name: fields[name] for name in SIZES if name in fields}
    function: dict[str, Any] = {"activation_func": symbol(activation)}
    if bidirectional.is_bidirectional(fields):
        function["transformer_layer_spec"] = symbol(BIDIRECTIONAL)
    elif fields.get("multi_latent_attention"):
        function["transformer_layer_spec"] = symbol(LATENT)
    return {"_target_": provider, **model, **function, **size, **dict.fromkeys(LAYOUT, 1)}


def _rope_faults(fields: Mapping[str, Any]) -> Iterator[str]:
    if fields.get("scale_factor") is not None:
        for name, value in FIXED_ROPE_SCALING.items():
            if fields.get(name) != value:
                yield f"{name} is {fields.get(name)!r}, and Megatron-Core has {value!r} fixed in its code"
