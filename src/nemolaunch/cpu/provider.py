"""The layer classes from which Megatron builds its Transformer Engine spec, here in plain torch."""

from __future__ import annotations

from functools import partial
from typing import Any

from megatron.core.models.backends import LocalSpecProvider
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe import experts
from megatron.core.transformer.moe.experts import SequentialMLP, TEGroupedMLP

from nemolaunch.cpu.attention import CoreAttention
from nemolaunch.cpu.grouped import ColumnParallelGroupedLinear, RowParallelGroupedLinear
from nemolaunch.cpu.norms import LayerNormColumnParallelLinear, Norm


class CpuSpecProvider(LocalSpecProvider):
    """Replacement for Megatron's `TESpecProvider`.

    It produces the same module tree and parameter names (norms inside the linear layer that follows them), so
    importers, exporters and distributed checkpoints are interchangeable with those of a GPU run.
    """

    def linear(self) -> type:
        """Return the linear layer."""
        return ColumnParallelLinear

    def fuse_layernorm_and_linear(self) -> bool:
        """Return True: a norm is part of the linear layer that follows it."""
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        """Return the linear layer with a norm."""
        return LayerNormColumnParallelLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False, has_residual: bool = False) -> type:
        """Return the norm."""
        return Norm

    def core_attention(self) -> type:
        """Return the core attention."""
        return CoreAttention

    def grouped_mlp_modules(
        self, moe_use_grouped_gemm: bool, moe_use_legacy_grouped_gemm: bool = False
    ) -> Any:
        """Return the experts' class and its linear layers: since Megatron 0.18 as one callable that builds them."""
        submodules = getattr(experts, "GroupedMLPSubmodules", MLPSubmodules)
        if moe_use_grouped_gemm:
            found = (
                TEGroupedMLP,
                submodules(linear_fc1=ColumnParallelGroupedLinear, linear_fc2=RowParallelGroupedLinear),
            )
        elif submodules is not MLPSubmodules:
            return super().grouped_mlp_modules(False)
        else:
            found = (
                SequentialMLP,
                MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear),
            )
        return found if submodules is MLPSubmodules else partial(found[0], submodules=found[1])
