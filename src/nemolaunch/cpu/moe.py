"""Mixture-of-experts kernels that Megatron takes from Transformer Engine, replaced by its own unfused ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def install() -> None:
    """Give Megatron's token dispatchers CPU versions of the fused permutations."""
    from megatron.core.transformer.moe import moe_utils, token_dispatcher

    permute, unpermute, sort = moe_utils.permute, moe_utils.unpermute, moe_utils.sort_chunks_by_idxs

    def fused_permute(tokens: Tensor, routing_map: Tensor, num_out_tokens: int | None = None) -> Any:
        out, _, indices = permute(tokens, routing_map, num_out_tokens=num_out_tokens)[:3]
        return out, indices

    def fused_permute_with_probs(
        tokens: Tensor, probs: Tensor, routing_map: Tensor, num_out_tokens: int | None = None
    ) -> Any:
        # Megatron 0.19 returns two more
        return permute(tokens, routing_map, probs=probs, num_out_tokens=num_out_tokens)[:3]

    def fused_unpermute(
        tokens: Tensor, indices: Tensor, merging_probs: Tensor | None = None, restore_shape: Any = None
    ) -> Tensor:
        if merging_probs is not None:
            raise ValueError("fused unpermute with merged probabilities is not available on the CPU")
        return unpermute(tokens, indices, restore_shape)

    def fused_sort(x: Tensor, sizes: Tensor, order: Tensor) -> Tensor:
        return sort(x, sizes, order)[0]

    def fused_sort_with_probs(x: Tensor, probs: Tensor, sizes: Tensor, order: Tensor) -> Any:
        return sort(x, sizes, order, probs)

    moe_utils.fused_permute = fused_permute
    moe_utils.fused_permute_with_probs = fused_permute_with_probs
    moe_utils.fused_unpermute = fused_unpermute
    moe_utils.fused_sort_chunks_by_index = fused_sort
    moe_utils.fused_sort_chunks_by_index_with_probs = fused_sort_with_probs
    moe_utils.HAVE_TE = True
    moe_utils.te_general_gemm = None  # Megatron 0.15 leaves the name undefined without Transformer Engine

    def maybe_move_tensor_to_cpu(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        return tensor.numpy() if as_numpy and hasattr(tensor, "numpy") else tensor

    _install_latent_projections()

    # Megatron's own function returns tensors that are not on a GPU unchanged, but all-to-all needs numbers
    token_dispatcher.maybe_move_tensor_to_cpu = maybe_move_tensor_to_cpu


def _install_latent_projections() -> None:
    """Let Megatron build the projections around experts that work in a narrower space, Nemotron 3 Super's."""
    from megatron.core.transformer.moe import moe_layer

    from nemolaunch.cpu.duplicated import DuplicatedLinear

    if hasattr(moe_layer, "TELinear"):  # not in Megatron 0.15
        moe_layer.TELinear, moe_layer.HAVE_TE = DuplicatedLinear, True
