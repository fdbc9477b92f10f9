"""The linear layers of a mixture of experts, one per local expert, as Transformer Engine's `GroupedLinear`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.dist_checkpointing.utils import replace_prefix_for_sharding
from megatron.core.tensor_parallel.random import get_expert_parallel_rng_tracker_name
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from megatron.core.utils import divide, get_pg_size, get_tensor_model_parallel_group_if_none
from torch import Tensor


class _GroupedLinear(torch.nn.Module):
    """`num_gemms` linear layers over consecutive slices of the tokens.

    The token dispatcher does all communication between experts, so there is none here. Parameters are named
    `weight<i>` and `bias<i>`; checkpoint keys are those of Transformer Engine.
    """

    axis: int  # of the weight that tensor parallelism splits

    def __init__(
        self,
        num_gemms: int,
        input_size: int,
        output_size: int,
        *,
        config: TransformerConfig,
        init_method: Callable[[Tensor], Any],
        bias: bool,
        skip_bias_add: bool,
        is_expert: bool = True,
        tp_group: Any = None,
        **_: Any,
    ) -> None:
        super().__init__()
        self.config, self.num_gemms, self.skip_bias_add = config, num_gemms, skip_bias_add
        self.use_bias = bias
        shape = [output_size, input_size]
        tp_group = get_tensor_model_parallel_group_if_none(tp_group, is_expert=is_expert)
        shape[self.axis] = divide(shape[self.axis], get_pg_size(tp_group))
        for i in range(num_gemms):
            weight = torch.nn.Parameter(torch.empty(shape, dtype=config.params_dtype))
            if config.perform_initialization:
                with tensor_parallel.get_cuda_rng_tracker().fork(get_expert_parallel_rng_tracker_name()):
                    init_method(weight)
            tensor_parallel.set_tensor_model_parallel_attributes(weight, True, self.axis, 1)
            self.register_parameter(f"weight{i}", weight)
            if bias:
                zero = torch.zeros(shape[0], dtype=config.params_dtype)
                self.register_parameter(f"bias{i}", torch.nn.Parameter(zero))
        for parameter in self.parameters():
            parameter.allreduce = config.expert_model_parallel_size == 1  # type: ignore[attr-defined]
        self._register_load_state_dict_pre_hook(self._merge_extra_states)

    def forward(self, x: Tensor, m_splits: list[int]) -> tuple[Tensor, list[Tensor] | None]:
        """Apply the layers to `x`, [tokens, input size], sorted by expert; `m_splits` are tokens per expert."""
        parts = x.split(m_splits)
        out = torch.cat([F.linear(p, w) for p, w in zip(parts, self._each("weight"), strict=True)])
        if not self.use_bias:
            return out, None
        if self.skip_bias_add:
            return out, self._each("bias")
        return torch.cat([p + b for p, b in zip(out.split(m_splits), self._each("bias"), strict=True)]), None

    def get_extra_state(self) -> None:
        """Return an empty extra state, which Transformer Engine saves."""
        return None

    def set_extra_state(self, state: Any) -> None:
        """Ignore the extra state."""

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None
    ) -> dict[str, Any]:
        """Return one checkpoint entry per expert, numbered over all expert-parallel ranks."""
        out: dict[str, Any] = {}
        rank = parallel_state.get_expert_model_parallel_rank()
        for i in range(self.num_gemms):
            shards = self._sharded_expert(
                i, rank * self.num_gemms + i, prefix, sharded_offsets, metadata or {}
            )
            out[f"{prefix}weight{i}"] = shards[f"{i}.weight"]
            out[f"{prefix}_extra_state{i or ''}"] = shards[f"{i}._extra_state"]
            if self.use_bias:
                out[f"{prefix}bias{i}"] = shards[f"{i}.bias"]
        for shard in out.values():
            shard.replica_id = (*shard.replica_id[:2], parallel_state.get_expert_data_parallel_rank())
        return out

    def _sharded_expert(
        self, i: int, expert: int, prefix: str, offsets: tuple, metadata: dict
    ) -> dict[str, Any]:
        entries: dict[str, Any] = {f"{i}.weight": getattr(self, f"weight{i}"), f"{i}._extra_state": None}
        axes = {f"{i}.weight": self.axis}
        if self.use_bias:
            entries[f"{i}.bias"] = getattr(self, f"bias{i}")
            if self.axis == 0:
                axes[f"{i}.bias"] = 0
        single = metadata.get("singleton_local_shards", False)
        if not single:
            total = parallel_state.get_expert_model_parallel_world_size() * self.num_gemms
            offsets = (*offsets, (len(offsets), expert, total))
        shards = make_sharded_tensors_for_checkpoint(entries, "", axes, offsets)
        replace_prefix_for_sharding(shards, f"{i}.", f"{expert}.{prefix}" if single else prefix)
        return shards

    def _each(self, name: str) -> list[Tensor]:
        return [getattr(self, f"{name}{i}") for i in range(self.num_gemms)]

    def _merge_extra_states(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state")
        for i in range(1, self.num_gemms):
            state_dict.pop(f"{prefix}_extra_state{i}", None)


class ColumnParallelGroupedLinear(_GroupedLinear):
    """Expert linear layers whose output is split over tensor-parallel ranks."""

    axis = 0


class RowParallelGroupedLinear(_GroupedLinear):
    """Expert linear layers whose input is split over tensor-parallel ranks."""

    axis = 1
