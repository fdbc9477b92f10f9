"""Llama 4. Bridge has its attention for the vision model, written for an earlier Megatron-Core."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from megatron.bridge.models.gpt_provider import GPTModelProvider
from megatron.bridge.models.llama.llama4_utils import Llama4SelfAttention
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.torch_norm import L2Norm
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset


class ChunkedAttention(Llama4SelfAttention):
    """Attention within chunks, with the names that Megatron-Core 0.19 uses."""

    @property
    def model_comm_pgs(self) -> Any:
        """The process groups."""
        return self.pg_collection

    def forward(self, *args: Any, rotary_pos_cos_sin: Any = None, **kwargs: Any) -> Any:
        """Attend. The argument that newer layers pass is for inference."""
        return super().forward(*args, **kwargs)


def llama4_layers(config: Llama4Provider, vp_stage: int | None = None) -> Any:
    """Return the layers of this pipeline stage: each of the interval has neither positions nor norms of queries."""
    block = get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=vp_stage)
    first = get_transformer_layer_offset(config, vp_stage=vp_stage) + 1
    layers = []
    for number, spec in enumerate(block.layer_specs, start=first):
        layer = deepcopy(spec)
        attention = layer.submodules.self_attention
        without = config.nope_layer_interval is not None and number % config.nope_layer_interval == 0
        attention.module = ChunkedAttention
        attention.params = {
            "is_nope_layer": without,
            "attention_chunk_size": config.attention_chunk_size,
            "attn_mask_type": AttnMaskType.causal,
        }
        norm = L2Norm if config.qk_l2_norm and not without else None
        attention.submodules.q_layernorm = attention.submodules.k_layernorm = norm
        layers.append(layer)
    block.layer_specs = layers
    return block


@dataclass
class Llama4Provider(GPTModelProvider):
    """Configuration of Llama 4.

    Attributes:
        nope_layer_interval: every layer of this interval has no rotary positions.
        attention_chunk_size: tokens attend within chunks of this size.
        transformer_layer_spec: the layers.
    """

    nope_layer_interval: int | None = 4
    attention_chunk_size: int = 8192
    transformer_layer_spec: Callable[..., Any] = llama4_layers
