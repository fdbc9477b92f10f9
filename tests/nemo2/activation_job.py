"""Runs in a fork server's rank: Megatron's SwiGLU functions beside autograd's own derivative."""

from __future__ import annotations


def swiglu_gradients() -> dict[str, float]:
    """Largest difference of the gradients, by Megatron's function, in float64."""
    import torch
    import torch.nn.functional as F
    from megatron.core.fusions import fused_bias_swiglu as fused

    def plain(y: torch.Tensor) -> torch.Tensor:
        gate, up = y.chunk(2, -1)
        return F.silu(gate) * up

    torch.manual_seed(0)
    y = torch.randn(5, 3, 16, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(16, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(5, 1, dtype=torch.float64, requires_grad=True)
    flat = y[:, 0]
    g = torch.randn(5, 3, 8, dtype=torch.float64)

    def apart(
        ours: torch.Tensor, theirs: torch.Tensor, grad: torch.Tensor, inputs: list[torch.Tensor]
    ) -> float:
        found = (torch.autograd.grad(of, inputs, grad) for of in (ours, theirs))
        return max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))

    return {
        "without bias": apart(fused.bias_swiglu_impl(y, None), plain(y), g, [y]),
        "with bias": apart(fused.bias_swiglu_impl(y, bias), plain(y + bias), g, [y, bias]),
        "of experts": apart(
            fused.weighted_bias_swiglu_impl(flat, None, weights), plain(flat) * weights, g[:, 0], [y, weights]
        ),
    }
