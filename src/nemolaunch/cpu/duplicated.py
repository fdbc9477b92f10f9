"""A linear layer that every tensor parallel rank has whole, as Transformer Engine's without a parallel mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.tensor_parallel.random import get_data_parallel_rng_tracker_name
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor


class DuplicatedLinear(torch.nn.Module):
    """Replaces Megatron's `TELinear` where it is "duplicated": around experts that work in a narrower space."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        parallel_mode: str,
        config: TransformerConfig,
        init_method: Callable[[Tensor], Any],
        bias: bool,
        **_: Any,
    ) -> None:
        super().__init__()
        if parallel_mode != "duplicated" or bias:
            raise ValueError(
                f"parallel_mode={parallel_mode!r}, bias={bias}: the CPU only supports 'duplicated'"
            )
        self.weight = torch.nn.Parameter(torch.empty(output_size, input_size, dtype=config.params_dtype))
        if config.perform_initialization:
            with tensor_parallel.get_cuda_rng_tracker().fork(get_data_parallel_rng_tracker_name()):
                init_method(self.weight)
        self.weight.allreduce = True  # type: ignore[attr-defined]
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Apply the layer; Megatron expects a bias beside the result."""
        return F.linear(x, self.weight), None

    def get_extra_state(self) -> None:
        """Return an empty extra state, which Transformer Engine saves."""
        return None

    def set_extra_state(self, state: Any) -> None:
        """Ignore the extra state."""

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None
    ) -> dict[str, Any]:
        """Return the whole weight, of which every rank has a replica."""
        state = self.state_dict(prefix="", keep_vars=True)
        return make_sharded_tensors_for_checkpoint(state, prefix, None, sharded_offsets)
