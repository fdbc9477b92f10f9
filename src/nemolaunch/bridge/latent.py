"""Layers of multi-latent attention (DeepSeek), as the models have them."""

from __future__ import annotations

from typing import Any

from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.multi_latent_attention import MLASelfAttention


class PlainQueries(MLASelfAttention):
    """Attention that does not normalise queries which it does not project down.

    With `qk_layernorm`, Megatron-Core 0.19 puts a norm with weights of its own before the projection of queries if
    there is no `q_lora_rank`, as in DeepSeek-V2-Lite. Neither the models nor NeMo's Megatron-Core have it
    (NVIDIA-NeMo/Megatron-Bridge#5261). Releases without it do not call this method.
    """

    def _resolve_qk_norm_config(self, submodules: Any) -> Any:
        found = super()._resolve_qk_norm_config(submodules)
        return {**found, "linear_q_proj": submodules.linear_q_proj}


def layers(config: Any, vp_stage: int | None = None) -> Any:
    """Return the layers of this pipeline stage, of which the first may have no experts."""
    block = get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=vp_stage)
    for layer in block.layer_specs:
        attention = layer.submodules.self_attention
        if config.q_lora_rank is None and attention.module is MLASelfAttention:
            attention.module = PlainQueries
    return block
