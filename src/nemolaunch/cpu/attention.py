"""Core attention on torch's own kernel, with context parallelism."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor


class CoreAttention(MegatronModule):
    """`scaled_dot_product_attention` as a replacement for Megatron's `TEDotProductAttention`.

    Causal without a mask tensor; grouped queries, sliding window, attention sinks, dropout, packed sequences. With
    context parallelism each rank gathers all keys and values: the result is that of the ring used on GPUs, the memory
    use is not.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str = "self",
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        softmax_type = getattr(config, "softmax_type", "vanilla")  # since Megatron 0.15
        if softmax_type not in ("vanilla", "learnable"):
            raise ValueError(
                f"softmax_type={softmax_type!r}: the CPU only supports 'vanilla' and 'learnable'"
            )
        self.softmax_offset = _offsets(config) if softmax_type == "learnable" else None
        self._register_load_state_dict_pre_hook(_without_extra_state)
        self.attn_mask_type = attn_mask_type
        self.softmax_scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.window = config.window_size[0] if is_windowed(config, layer_number) else None
        self.cp_size = config.context_parallel_size

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> Tensor:
        """Attend; from [sequence, batch, heads, head size] to [sequence, batch, heads x head size].

        With packed sequences, from [sequence, heads, head size] to the same; each attends to itself only.
        """
        if attention_bias is not None:
            raise ValueError("attention bias needs Transformer Engine, hence a GPU")
        if packed_seq_params is not None:
            return self._attend_to_each(query, key, value, packed_seq_params, attn_mask_type)
        mask_type = attn_mask_type or self.attn_mask_type
        length = query.size(0)
        key, value = self._gather(key), self._gather(value)
        mask = self._mask(mask_type, length, key.size(0), attention_mask, query.device)
        query, key, value = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        causal = _is_causal(mask_type) and mask is None and length > 1
        if self.softmax_offset is not None:
            key, value, mask = _with_sink(query, key, value, mask, causal, self.softmax_offset)
            causal = False

        def attend() -> Tensor:
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                is_causal=causal,
                dropout_p=dropout,
                scale=self.softmax_scale,
                enable_gqa=query.size(1) != key.size(1),
            )

        # As in Megatron: with sequence parallelism the tracked generator is already active
        if dropout and not self.config.sequence_parallel:
            with tensor_parallel.get_cuda_rng_tracker().fork():
                out = attend()
        else:
            out = attend()
        return out.permute(2, 0, 1, 3).reshape(length, query.size(0), -1)

    def _attend_to_each(
        self, query: Tensor, key: Tensor, value: Tensor, packed: Any, mask_type: AttnMaskType | None
    ) -> Tensor:
        """Attend within each of the packed sequences, one after the other."""
        if self.cp_size > 1:
            raise ValueError("packed sequences cannot be split over context parallel ranks on the CPU")
        lengths = packed.cu_seqlens_q.diff().tolist()
        parts = zip(*(t.unsqueeze(1).split(lengths) for t in (query, key, value)), strict=True)
        out = torch.cat([self(*part, attn_mask_type=mask_type) for part in parts])
        return out.view(query.shape)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None
    ) -> dict[str, Any]:
        """Return the offsets of attention sinks; without them, the layer has no parameters."""
        if self.softmax_offset is None:
            return {}
        entries = {"softmax_offset": self.softmax_offset, "_extra_state": None}  # as Transformer Engine
        return dict(
            make_sharded_tensors_for_checkpoint(entries, prefix, {"softmax_offset": 0}, sharded_offsets)
        )

    def _mask(
        self,
        mask_type: AttnMaskType,
        length: int,
        key_length: int,
        given: Tensor | None,
        device: torch.device,
    ) -> Tensor | None:
        """Return a mask, True where a query may attend; `None` for the kernel's causal mask, or no mask."""
        mask = None
        if _is_causal(mask_type) and (self.window is not None or self.cp_size > 1):
            gap = self._positions(length, device)[:, None] - torch.arange(key_length, device=device)
            mask = gap >= 0
            if self.window is not None:
                mask &= gap <= self.window
        if given is not None and mask_type != AttnMaskType.causal:
            mask = ~given if mask is None else mask & ~given
        return mask

    def _positions(self, length: int, device: torch.device) -> Tensor:
        """Return the positions of the local queries: of 2 x CP chunks, rank r has chunks r and 2 x CP - 1 - r."""
        if self.cp_size == 1:
            return torch.arange(length, device=device)
        rank, half = parallel_state.get_context_parallel_rank(), length // 2
        chunk = torch.arange(half, device=device)
        return torch.cat([rank * half + chunk, (2 * self.cp_size - 1 - rank) * half + chunk])

    def _gather(self, x: Tensor) -> Tensor:
        """Return the keys or values of all ranks in sequence order; the backward pass reduce-scatters."""
        if self.cp_size == 1:
            return x
        x = tensor_parallel.gather_from_sequence_parallel_region(
            x, tensor_parallel_output_grad=True, group=parallel_state.get_context_parallel_group()
        )
        chunks = x.chunk(2 * self.cp_size, dim=0)  # two of rank 0, two of rank 1, ...
        first = [2 * rank for rank in range(self.cp_size)]
        second = [2 * rank + 1 for rank in reversed(range(self.cp_size))]
        return torch.cat([chunks[i] for i in first + second])


def _offsets(config: TransformerConfig) -> torch.nn.Parameter:
    """Return the offsets of this rank's heads, which begin at zero."""
    heads = config.num_attention_heads // config.tensor_model_parallel_size
    offsets = torch.nn.Parameter(torch.zeros(heads, dtype=config.params_dtype))
    tensor_parallel.set_tensor_model_parallel_attributes(offsets, True, 0, 1)
    return offsets


def _without_extra_state(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    state_dict.pop(f"{prefix}_extra_state", None)


def _with_sink(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys and values with one more position, of zeros, and what to add to the scores.

    Its score is the head's offset, so that it takes a share of the probabilities and adds nothing to the output. All
    tensors are [batch, heads, positions, head size].
    """
    batch, heads, length, _ = query.shape
    places = key.size(2)
    if mask is None:
        mask = torch.ones(length, places, dtype=torch.bool, device=query.device)
        mask = mask.tril(places - length) if causal else mask
    scores = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -math.inf)
    sink = offsets.to(query.dtype).view(1, heads, 1, 1).expand(batch, heads, length, 1)
    added = torch.cat([scores.expand(batch, heads, length, places), sink], dim=-1)
    zeros = key.new_zeros(batch, key.size(1), 1, key.size(3))
    return torch.cat([key, zeros], dim=2), torch.cat([value, zeros[..., : value.size(3)]], dim=2), added


def is_windowed(config: TransformerConfig, layer_number: int) -> bool:
    """Return whether the layer (counted from 1) attends through the sliding window of `config.window_size`."""
    if not config.window_size:
        return False
    skip = getattr(config, "window_attn_skip_freq", None)  # since Megatron 0.15
    if isinstance(skip, int):
        return layer_number % skip != 0
    return skip is None or bool(skip[layer_number - 1])


def _is_causal(mask_type: AttnMaskType) -> bool:
    return mask_type in (AttnMaskType.causal, AttnMaskType.padding_causal)
