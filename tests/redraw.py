"""Initial weights that depend on their names alone, for models that two releases of Megatron draw in another order."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

DRAWN = 0.04  # twice the greatest weight


def redraw(parameters: Iterable[tuple[str, Any]]) -> None:
    """Overwrite all matrices, and all that belongs to Mamba's states but its norms."""
    import torch

    for name, parameter in parameters:
        # without the wrappers' names; the convolution of Mamba is a module in Megatron-Core 0.15 and not in 0.19
        plain = name.replace("module.", "").replace("conv1d_", "conv1d.")
        if parameter.dim() > 1 or plain.endswith(("A_log", "dt_bias", "conv1d.bias")):
            generator = torch.Generator().manual_seed(zlib.crc32(plain.encode()))
            values = torch.rand(parameter.shape, generator=generator) * DRAWN - DRAWN / 2
            parameter.data.copy_(values)
