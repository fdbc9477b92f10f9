"""Gated delta nets, the linear attention of Qwen3-Next, on a CPU: what Megatron takes from flash-linear-attention."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COMMON = "megatron.core.ssm.gated_delta_net.common"  # since Megatron 0.18


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **options: Any
) -> tuple[Tensor, None]:
    """Convolve each channel of [batch, sequence, channels] with its filter, [channels, width]; then silu."""
    _only_whole_sequences(options)
    width = weight.size(-1)
    out = F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=width - 1, groups=x.size(-1))
    out = out[..., : x.size(1)].transpose(1, 2)
    return (F.silu(out) if activation in ("silu", "swish") else out), None


def l2norm(x: Tensor, dim: int = -1, eps: float = 1e-6) -> Tensor:
    """Divide by the Euclidean norm over a dimension."""
    return x * torch.rsqrt((x * x).sum(dim=dim, keepdim=True) + eps)


def chunk_gated_delta_rule(*args: Any, **options: Any) -> Any:
    """Run the gated delta rule with Megatron's own function, which it has for deterministic training."""
    _only_whole_sequences(options)
    return sys.modules[COMMON].torch_chunk_gated_delta_rule(*args, **options)


def _only_whole_sequences(options: dict[str, Any]) -> None:
    if options.get("cu_seqlens") is not None:
        raise ValueError("packed sequences in layers with a gated delta net need a GPU")


def modules() -> dict[str, ModuleType]:
    """Return the modules of flash-linear-attention from which Megatron takes these."""
    functions = {
        "fla.modules.convolution": causal_conv1d,
        "fla.modules.l2norm": l2norm,
        "fla.ops.gated_delta_rule": chunk_gated_delta_rule,
    }
    found = {name: ModuleType(name) for name in ("fla", "fla.modules", "fla.ops", *functions)}
    for name, function in functions.items():
        setattr(found[name], function.__name__, function)
    return found
