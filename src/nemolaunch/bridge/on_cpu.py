"""Let Megatron-Bridge train on a CPU, with the stand-ins of `nemolaunch.cpu`."""

from __future__ import annotations

import functools
from typing import Any

from nemolaunch import cpu


@functools.cache
def install() -> None:
    """Turn this process into a CPU rehearsal. Must be called before `megatron.bridge` is imported."""
    cpu.install_megatron()
    import torch
    from megatron.bridge.training import initialize, setup

    # `setup` does not pass on that it is allowed
    setup.initialize_megatron = functools.partial(setup.initialize_megatron, allow_no_cuda=True)
    # runs `make` in the installed package; wheels have the compiled module, but no Makefile
    initialize.compile_helpers = lambda: None

    # A loader draws its seed from the CPU's random generator, which here is dropout's too: without this, a resumed
    # run would drop out otherwise than the uninterrupted one, whose loader was built before its first step
    setup_data_iterators = setup.setup_data_iterators

    def without_drawing(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            return setup_data_iterators(*args, **kwargs)

    setup.setup_data_iterators = without_drawing
