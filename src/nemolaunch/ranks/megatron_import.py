"""Import Megatron without its allocator for inference, which it compiles as soon as it is imported."""

from __future__ import annotations


def skip_inference_allocator() -> None:
    """Call before Megatron is imported: training and conversion never use the allocator.

    Where torch is a CUDA build and the CUDA toolkit is installed, `megatron.core.inference.unified_memory`
    (0.15) compiles it, half a minute the first time; with no GPU visible the import fails altogether, since
    torch then knows no architecture to compile for. Without a toolkit it does without, and so it does here.
    """
    import torch.utils.cpp_extension as extension

    extension.CUDA_HOME = None
