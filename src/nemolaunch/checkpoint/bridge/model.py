"""The model's configuration that Bridge needs in a checkpoint, from NeMo's; see `nemolaunch.facts.bridge_model`."""

from __future__ import annotations

from typing import Any

from nemolaunch.catalogue.bridge_models import FUNCTIONS, PLANNED
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.megatron.description import (
    LAYOUT,
    NEMOS_ACTIVATIONS,
    SIZES,
    layer_spec,
    rope_faults,
)
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.bridge_model import ACTIVATIONS, BIDIRECTIONAL
from nemolaunch.families.bridge_classes import WRITTEN
from nemolaunch.families.nemo_config import NemoConfig, defaults, symbol, symbol_path
from nemolaunch.families.registry import of_nemo

# Fields of NeMo's configuration, besides those of `PLANNED`, that Bridge's lacks because they are always off, or that
# choose kernels
DROPPED = {
    "async_tensor_model_parallel_allreduce", "attention_backend", "moe_extended_tp", "moe_use_legacy_grouped_gemm",
}  # fmt: skip
# NeMo's GPT-OSS sets these to a scale of the scores other than transformers' and Bridge's, which leave them out
YARN_SCALES = {"yarn_mscale", "yarn_mscale_all_dim"}
QUICK_GELU = "megatron.core.fusions.fused_bias_geglu.quick_gelu"  # the one that Megatron's experts look for
# Of models that only Bridge has, for whose experts its exporters know the names of grouped ones alone
EXPERTS = {"moe_grouped_gemm": True, "moe_token_dispatcher_type": "alltoall", "moe_router_dtype": "fp32"}


def to_bridge(config: NemoConfig) -> dict[str, Any]:
    """Return the `model` section of a `run_config.yaml` for a NeMo configuration.

    Raises `NemolaunchError` if Bridge cannot represent the model.
    """
    family = of_nemo(config)
    written = WRITTEN.get(family.model_type)
    if written is None:
        raise NemolaunchError(
            f"there is no conversion of {family.model_type} to Megatron-Bridge; there is one of {', '.join(WRITTEN)}. "
            "Convert it with Bridge's own AutoBridge.import_ckpt"
        )
    fields = config.resolved
    activation = str(symbol_path(fields.get("activation_func")))
    activation = FUNCTIONS.get(activation, activation).replace(
        NEMOS_ACTIVATIONS, "megatron.core.activations."
    )
    if activation.endswith(".quick_gelu"):
        activation = QUICK_GELU
    faults = [*rope_faults(fields)]
    if fields.get("multi_latent_attention") and not fields.get("q_lora_rank"):
        # megatron/core/transformer/mla_qk_norm_config.py; AutoBridge fails at that norm's weight
        faults.append(
            "it has no q_lora_rank, and Megatron-Core 0.19 then normalises what queries are made of twice"
        )
    if activation not in ACTIVATIONS:
        faults.append(f"its activation function is {activation}")
    if faults:
        raise NemolaunchError(f"Megatron-Bridge cannot represent this model: {', '.join(faults)}")
    scale = fields.get("scale_factor")
    rope = {"rope_scaling": True, "rope_scaling_factor": scale} if scale is not None else {}
    default = defaults(written.name)
    own = config.fields if config.only_in_bridge else fields  # the rest are defaults of Bridge's class
    model = {
        name: value
        for name, value in own.items()
        if name not in PLANNED | DROPPED | YARN_SCALES
        and (value is not None or default.get(name) is not None)
    }
    if config.only_in_bridge and fields.get("num_moe_experts"):
        model |= EXPERTS
    if fields.get("hybrid_override_pattern"):
        model |= {"hybrid_layer_pattern": model.pop("hybrid_override_pattern"), "is_hybrid_model": True}
    size = {name: fields[name] for name in SIZES}
    function = {"activation_func": symbol(activation)}
    if bidirectional.is_bidirectional(fields):
        function["transformer_layer_spec"] = symbol(BIDIRECTIONAL)
    elif written.layers:
        function["transformer_layer_spec"] = layer_spec(written.layers)
    return {"_target_": written.path, **model, **function, **rope, **size, **dict.fromkeys(LAYOUT, 1)}
