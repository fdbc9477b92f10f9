"""Layers that attend to both sides of a token, for masked language models.

A checkpoint's `run_config.yaml` names this function as the model's layers, which is how it is known to be bidirectional
(`nemolaunch.facts.bridge_model`). Nothing imports what is named there, Bridge's training included.
"""

from __future__ import annotations

from copy import deepcopy

from megatron.bridge.models.gpt_provider import GPTModelProvider
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import ModuleSpec


def layers(config: GPTModelProvider) -> ModuleSpec:
    """Return the layer of a model's own class, with attention without any mask.

    Planning refuses models whose layers are of several kinds, or built otherwise.
    """
    layer = deepcopy(type(config).transformer_layer_spec(config))
    attention = layer.submodules.self_attention
    if attention.params["attn_mask_type"] != AttnMaskType.causal:
        raise RuntimeError(f"the layers have the mask {attention.params['attn_mask_type']}")
    attention.params = {**attention.params, "attn_mask_type": AttnMaskType.no_mask}
    return layer
