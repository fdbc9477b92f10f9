"""Normalisation layers with Transformer Engine's parameter names and precision."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class Norm(torch.nn.Module):
    """RMSNorm or LayerNorm over the last dimension, depending on `config.normalization`.

    Replaces Megatron's `TENorm`: computes in float32 for any input type, supports zero-centred gamma, and marks
    its parameters for the gradient all-reduce of sequence parallelism.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        if config.normalization not in ("RMSNorm", "LayerNorm"):
            raise ValueError(
                f"normalization={config.normalization!r}: the CPU supports RMSNorm and LayerNorm"
            )
        self.config, self.eps = config, eps
        add_norm_parameters(self, config, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `x`."""
        return normalise(x, self.weight, getattr(self, "bias", None), self.config, self.eps)

    def get_extra_state(self) -> None:
        """Return an empty extra state: Transformer Engine 2 saves one for its norms, and requires it on loading."""
        return None

    def set_extra_state(self, state: Any) -> None:
        """Ignore the extra state."""


class LayerNormColumnParallelLinear(ColumnParallelLinear):
    """A norm followed by a column-parallel linear layer; the norm's parameters are named `layer_norm_*`."""

    def __init__(
        self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs: Any
    ) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        add_norm_parameters(self, config, input_size, "layer_norm_")

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Normalise `x`, and apply the linear layer."""
        bias = getattr(self, "layer_norm_bias", None)
        x = normalise(x, self.layer_norm_weight, bias, self.config, self.config.layernorm_epsilon)
        return super().forward(x, *args, **kwargs)


def add_norm_parameters(
    module: torch.nn.Module, config: TransformerConfig, size: int, prefix: str = ""
) -> None:
    """Register `<prefix>weight`, and `<prefix>bias` for LayerNorm, with their initial values."""
    for name in ["weight"] if config.normalization == "RMSNorm" else ["weight", "bias"]:
        start = 1.0 if name == "weight" and not config.layernorm_zero_centered_gamma else 0.0
        device = None if config.use_cpu_initialization else torch.device("cuda", torch.cuda.current_device())
        parameter = torch.nn.Parameter(torch.full((size,), start, dtype=config.params_dtype, device=device))
        parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        parameter.allreduce = True  # type: ignore[attr-defined]
        module.register_parameter(prefix + name, parameter)


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor | None, config: TransformerConfig, eps: float
) -> Tensor:
    """Normalise the last dimension in float32 and return the input's type, as Transformer Engine does."""
    gamma = weight.float() + 1.0 if config.layernorm_zero_centered_gamma else weight.float()
    if config.normalization == "RMSNorm":
        out = F.rms_norm(x.float(), (x.size(-1),), gamma, eps)
    else:
        assert bias is not None
        out = F.layer_norm(x.float(), (x.size(-1),), gamma, bias.float(), eps)
    return out.to(x.dtype)
