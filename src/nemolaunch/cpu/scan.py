"""Mamba-2's state space layers on a CPU: the functions that Megatron takes from the package mamba_ssm, in plain torch.

Formulas: "Transformers are SSMs", https://arxiv.org/abs/2405.21060, section 6. Tests compare them with transformers'
Mamba-2.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MIXER = "megatron.core.ssm.mamba_mixer"
CHUNK = 64  # positions computed at once; the result does not depend on it


class GatedRMSNorm(torch.nn.Module):
    """RMSNorm over groups of channels, with the arguments of mamba_ssm's class of that name."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.group_size = eps, group_size or hidden_size
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group of channels. Megatron has the gate applied before."""
        groups = x.float().unflatten(-1, (-1, self.group_size))
        out = F.rms_norm(groups, (self.group_size,), eps=self.eps).flatten(-2)
        return (out * self.weight.float()).to(x.dtype)


def split_conv_scan(
    projected: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    activation: str = "silu",
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
    seq_idx: Tensor | None = None,
) -> Tensor:
    """Apply the convolution, the scan and the gate of a Mamba-2 layer, as mamba_ssm's function for training.

    Args:
        projected: gate, inputs, B, C and step sizes, [batch, sequence, channels], in this order.
        conv_weight: of the causal convolution over inputs, B and C, [channels, width].
        conv_bias: its bias.
        dt_bias: added to the step sizes, [heads].
        A: the decay of each head, negative.
        D: how much of its input each head, or each channel, passes on.
        chunk_size: of the kernel on a GPU; the result does not depend on it.
        activation: after the convolution: silu.
        headdim: channels per head; None if D has them.
        ngroups: groups of heads that share B and C.
        norm_before_gate: has no meaning here, since the norm is not part of the function.
        seq_idx: packed sequences, which are refused.

    Returns:
        [batch, sequence, channels of the inputs], gated, but neither normalised nor projected.

    Raises:
        ValueError: packed sequences, which need the kernel.
    """
    if seq_idx is not None:
        raise ValueError("packed sequences in Mamba layers need a GPU")
    heads = A.numel()
    inner = heads * (D.size(-1) if headdim is None else headdim)
    state = (projected.size(-1) - 2 * inner - heads) // (2 * ngroups)
    gate, mixed, dt = projected.split([inner, inner + 2 * ngroups * state, heads], dim=-1)
    mixed = F.silu(_causal_convolution(mixed, conv_weight, conv_bias))
    x, b, c = (t.float() for t in mixed.split([inner, ngroups * state, ngroups * state], dim=-1))
    x = x.unflatten(-1, (heads, -1))
    out = scan(
        x,
        F.softplus(dt.float() + dt_bias),
        A,
        b.unflatten(-1, (ngroups, state)),
        c.unflatten(-1, (ngroups, state)),
    )
    out = out + x * (D.float() if D.dim() == 2 else D.float()[:, None])
    return (out.flatten(-2) * F.silu(gate.float())).to(projected.dtype)


def _causal_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel of [batch, sequence, channels] with its own filter over the present and the past."""
    length, width = x.size(1), weight.size(-1)
    out = F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=width - 1, groups=x.size(-1))
    return out[..., :length].transpose(1, 2)


def scan(x: Tensor, dt: Tensor, decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Run the recurrence h ← exp(dt·decay)·h + dt·b⊗x and return c·h at each position.

    Args:
        x: inputs, [batch, sequence, heads, channels].
        dt: step sizes, [batch, sequence, heads].
        decay: one negative number per head.
        b: what of an input enters the state, [batch, sequence, groups, state].
        c: what of the state is read, likewise.

    Returns:
        [batch, sequence, heads, channels]. Within a chunk all pairs of positions are computed at once; between chunks
        the state is passed on.
    """
    per_group = x.size(2) // b.size(2)
    b, c = (t.repeat_interleave(per_group, dim=2) for t in (b, c))
    state = x.new_zeros(x.size(0), x.size(2), x.size(3), b.size(-1))
    outputs = []
    for inputs, rate, into, read in zip(
        *(t.split(CHUNK, dim=1) for t in (x * dt.unsqueeze(-1), dt * decay, b, c)), strict=True
    ):
        total = rate.cumsum(1)  # the logarithm of the decay since the chunk began
        between = total.unsqueeze(2) - total.unsqueeze(1)  # [batch, to, from, heads]
        later = torch.ones(between.shape[1:3], dtype=torch.bool, device=x.device).triu(1)
        between = between.masked_fill(later[:, :, None], -torch.inf).exp()
        weights = torch.einsum("bihn,bjhn->bijh", read, into) * between
        out = torch.einsum("bijh,bjhp->bihp", weights, inputs)
        # products of pairs only: one of three tensors would keep the state of every position
        out = out + torch.einsum("bihn,bhpn->bihp", read * total.exp().unsqueeze(-1), state)
        left = (total[:, -1:] - total).exp()
        added = torch.einsum("bjhn,bjhp->bhpn", into * left.unsqueeze(-1), inputs)
        state = state * total[:, -1].exp()[..., None, None] + added
        outputs.append(out)
    return torch.cat(outputs, dim=1)


def _unavailable(*_: Any, **__: Any) -> Any:
    raise ValueError("Mamba layers generate text only on a GPU")


def modules() -> dict[str, ModuleType]:
    """Return the modules of mamba_ssm from which Megatron's Mamba layer takes these."""
    norm = ModuleType("mamba_ssm.ops.triton.layernorm_gated")
    norm.RMSNorm = GatedRMSNorm  # type: ignore[attr-defined]
    combined = ModuleType("mamba_ssm.ops.triton.ssd_combined")
    combined.mamba_split_conv1d_scan_combined = split_conv_scan  # type: ignore[attr-defined]
    combined.mamba_chunk_scan_combined = _unavailable  # type: ignore[attr-defined]
    packages = [ModuleType(name) for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton")]
    return {module.__name__: module for module in (*packages, norm, combined)}
