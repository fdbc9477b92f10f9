"""Import Megatron without its inference allocator, which it would compile on import."""

from __future__ import annotations


def skip_inference_allocator() -> None:
    """Prevent the compilation; to be called before Megatron is imported. Training and conversion do not need it.

    If torch is a CUDA build and the CUDA toolkit is installed, `megatron.core.inference.unified_memory` (0.15)
    compiles the allocator, which takes half a minute the first time; if no GPU is visible the import fails, since
    torch does not know which architecture to compile for. Without a toolkit Megatron skips it, as it does after
    this call.
    """
    import torch.utils.cpp_extension as extension

    extension.CUDA_HOME = None
