"""The set of layer classes Megatron builds its Transformer Engine spec from, here in plain torch."""

from __future__ import annotations

from megatron.core.models.backends import LocalSpecProvider
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import SequentialMLP, TEGroupedMLP

from nemolaunch.cpu.attention import CoreAttention
from nemolaunch.cpu.grouped import ColumnParallelGroupedLinear, RowParallelGroupedLinear
from nemolaunch.cpu.norms import LayerNormColumnParallelLinear, Norm


class CpuSpecProvider(LocalSpecProvider):
    """Takes the place of Megatron's `TESpecProvider`.

    Gives the same module tree and parameter names (norms inside the linear that follows them), so importers,
    exporters and distributed checkpoints are interchangeable with a GPU run's.
    """

    def linear(self) -> type:
        return ColumnParallelLinear

    def fuse_layernorm_and_linear(self) -> bool:
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        return LayerNormColumnParallelLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False) -> type:
        return Norm

    def core_attention(self) -> type:
        return CoreAttention

    def grouped_mlp_modules(
        self, moe_use_grouped_gemm: bool, moe_use_legacy_grouped_gemm: bool = False
    ) -> tuple[type, MLPSubmodules]:
        if moe_use_grouped_gemm:
            return TEGroupedMLP, MLPSubmodules(
                linear_fc1=ColumnParallelGroupedLinear, linear_fc2=RowParallelGroupedLinear
            )
        return SequentialMLP, MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
