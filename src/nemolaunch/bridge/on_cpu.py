"""Let Megatron-Bridge train on a CPU, with the stand-ins of `nemolaunch.cpu`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from nemolaunch import cpu


@functools.cache
def install() -> None:
    """Turn this process into a CPU rehearsal. Must be called before `megatron.bridge` is imported."""
    cpu.install_megatron()
    from megatron.bridge.training import initialize, setup

    # `setup` does not pass on that it is allowed
    setup.initialize_megatron = functools.partial(setup.initialize_megatron, allow_no_cuda=True)
    # runs `make` in the installed package; wheels have the compiled module, but no Makefile
    initialize.compile_helpers = lambda: None

    from megatron.bridge.models.gemma import gemma2_provider

    gemma2_provider._HAVE_FLEX_ATTN = False  # torch's flex attention has no backward pass on a CPU

    with suppress(ImportError):  # before 0.6
        from megatron.bridge.models.hybrid import hybrid_provider

        hybrid_provider._configure_mamba_chunk_size = _with_chunks

    # These draw from the CPU's generator: a loader its seed, and the warm-up of fused functions its inputs, which on a
    # GPU come from that of the GPU, like dropout. The weights of expert routers come from the CPU's on either device.
    # Without this they would be others than NeMo 2's, and a resumed run would drop out otherwise than the uninterrupted
    # one, whose loader was built before its first step
    for name in ("setup_data_iterators", "set_jit_fusion_options"):
        setattr(setup, name, _without_drawing(getattr(setup, name)))


def _with_chunks(stack: Any, chunk_size: int) -> Any:
    """Return layers whose Mamba scan has another chunk size.

    Bridge copies all layers deeply for that, which those that need Transformer Engine do not stand where it is missing.
    """
    layer = stack.submodules.mamba_layer
    mixer = layer.submodules.mixer
    mixer = replace(mixer, params={**mixer.params, "chunk_size": chunk_size})
    layer = replace(layer, submodules=replace(layer.submodules, mixer=mixer))
    return replace(stack, submodules=replace(stack.submodules, mamba_layer=layer))


def _without_drawing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the state of the CPU's random generator restored after it."""
    import torch

    @functools.wraps(function)
    def restoring(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            return function(*args, **kwargs)

    return restoring
