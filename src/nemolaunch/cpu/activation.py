"""The backward pass of SwiGLU in torch's own kernels.

Megatron writes it as nine elementwise operations for a compiler to fuse. On the CPU nothing fuses them and each is
a pass over memory: together they are the largest cost of a rehearsal after matrix multiplications and attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu_back(g: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of `silu(gate) * up` with respect to `y`, gate and up concatenated in the last dimension."""
    gate, up = y.chunk(2, -1)
    out = torch.empty(y.shape, dtype=torch.promote_types(g.dtype, y.dtype))
    of_gate, of_up = out.chunk(2, -1)
    of_gate.copy_(torch.ops.aten.silu_backward(g * up, gate.to(out.dtype)))
    torch.mul(g, F.silu(gate), out=of_up)
    return out


def install() -> None:
    """Make Megatron's SwiGLU functions use this backward pass."""
    from megatron.core.fusions import fused_bias_swiglu

    fused_bias_swiglu.swiglu_back = swiglu_back
