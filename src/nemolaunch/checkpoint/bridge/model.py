"""A model's configuration in Bridge's terms ↔ in NeMo's.

Both are Megatron-Core's, under the same names; what differs is here. Bridge's configuration does not say which model of
the Hub it is, so that is found by what the fields say: all models of one family compute the same from the same fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nemolaunch.catalogue.bridge_models import FIXED_ROPE_SCALING, PLANNED
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.family import ModelFamily
from nemolaunch.families.nemo_config import NemoConfig, defaults, symbol, symbol_path
from nemolaunch.families.registry import FAMILIES, of_nemo

# Families whose models are Megatron's GPT without code of their own. Where the fields fit several, these compute the
# same, and the first is taken.
PLAIN = (
    "llama", "qwen2", "qwen3", "qwen3_moe", "mixtral", "mistral", "nemotron", "phi3", "starcoder2", "gpt_bigcode",
    "baichuan", "chatglm",
)  # fmt: skip
# Bridge's configuration classes -> the families that they can be
PROVIDERS = {"GPTModelProvider": PLAIN, "MistralModelProvider": ("mistral",)}
PROVIDER = "megatron.bridge.models.gpt_provider.GPTModelProvider"
# Fields that NeMo's configuration lacks, or that no family looks at, and that change what a model computes -> their
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
    "megatron.core.activations.squared_relu",
}
NEMOS_ACTIVATIONS = "nemo.collections.llm.fn.activation."  # Megatron has them under the same names
# Fields of NeMo's configuration, besides those of `PLANNED`, that Bridge's lacks because they are always off, or that
# choose kernels
DROPPED = {
    "async_tensor_model_parallel_allreduce", "attention_backend", "moe_extended_tp", "moe_use_legacy_grouped_gemm",
}  # fmt: skip
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")


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
    activation = symbol_path(fields.get("activation_func"))
    if activation not in ACTIVATIONS:
        raise NemolaunchError(
            f"activation_func is {activation!r}, which no model that nemolaunch converts has"
        )
    used = [
        f"{name} is {fields[name]!r}" for name, value in UNUSED.items() if fields.get(name, value) != value
    ]
    if used:
        raise NemolaunchError(f"{', '.join(used)}, which no model that nemolaunch converts has")
    faults = []
    for family in (FAMILIES[name] for name in sorted(types, key=lambda name: name != likely)):
        config = _as(family, fields)
        try:
            if of_nemo(config) is not family:
                continue
            family.to_hf(config)
        except NemolaunchError as error:
            faults.append(str(error))
        else:
            return config
    raise NemolaunchError(
        "no model that nemolaunch converts has this configuration:\n" + _fewest_lines(faults)
    )


def _as(family: ModelFamily, fields: Mapping[str, Any]) -> NemoConfig:
    rope = _rope_to_nemo(fields)
    name = family.config_class
    if not isinstance(name, str):  # Llama's
        name = "Llama31Config" if rope else "LlamaConfig"
    known = defaults(name)
    plain = {n: v for n, v in fields.items() if n in known and not isinstance(v, Mapping)}
    function = {"activation_func": fields.get("activation_func")}
    return NemoConfig(family.model_class, name, {**plain, **function, **rope})


def _rope_to_nemo(fields: Mapping[str, Any]) -> dict[str, Any]:
    if not fields.get("rope_scaling"):
        return {}
    return {"scale_factor": fields.get("rope_scaling_factor"), **FIXED_ROPE_SCALING}


def _fewest_lines(faults: list[str]) -> str:
    """Return the message of the family that is nearest to the configuration."""
    return min(faults, key=lambda text: text.count("\n"), default="")


def to_bridge(config: NemoConfig) -> dict[str, Any]:
    """Return the `model` section of a `run_config.yaml` for a NeMo configuration.

    Raises `NemolaunchError` if Bridge cannot represent the model.
    """
    family = of_nemo(config)
    if bidirectional.is_bidirectional(config.resolved):
        raise NemolaunchError("Megatron-Bridge has no model that attends to tokens on both sides")
    if family.model_type not in PLAIN:
        raise NemolaunchError(
            f"there is no conversion of {family.model_type} to Megatron-Bridge; there is one of {', '.join(PLAIN)}. "
            "Convert it with Bridge's own AutoBridge.import_ckpt"
        )
    fields = config.resolved
    activation = str(symbol_path(fields.get("activation_func")))
    activation = activation.replace(NEMOS_ACTIVATIONS, "megatron.core.activations.")
    faults = [*_rope_faults(fields)]
    if activation not in ACTIVATIONS:
        faults.append(f"its activation function is {activation}")
    if faults:
        raise NemolaunchError(f"Megatron-Bridge cannot represent this model: {', '.join(faults)}")
    scale = fields.get("scale_factor")
    rope = {"rope_scaling": True, "rope_scaling_factor": scale} if scale is not None else {}
    model = {
        name: value for name, value in fields.items() if name not in PLANNED | DROPPED and value is not None
    }
    size = {name: fields[name] for name in ("vocab_size", "seq_length", "params_dtype", "fp16", "bf16")}
    function = {"activation_func": symbol(activation)}
    return {"_target_": PROVIDER, **model, **function, **rope, **size, **dict.fromkeys(LAYOUT, 1)}


def _rope_faults(fields: Mapping[str, Any]) -> Iterator[str]:
    if fields.get("scale_factor") is not None:
        for name, value in FIXED_ROPE_SCALING.items():
            if fields.get(name) != value:
                yield f"{name} is {fields.get(name)!r}, and Megatron-Core has {value!r} fixed in its code"
