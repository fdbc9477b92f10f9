"""Train NeMo 2 recipes on a machine without a GPU: the rehearsal backend.

`install()` substitutes CPU classes for those of CUDA and Transformer Engine that Megatron and NeMo use, so that the
recipe and its checkpoints are those of a GPU run; `adapt(recipe)` sets the one field that differs, the
accelerator, and removes what a CPU cannot do.
"""

from __future__ import annotations

from nemolaunch.cpu.adapt import adapt, adapt_for_plain_layers
from nemolaunch.cpu.install import install, install_layers, install_megatron

__all__ = ["adapt", "adapt_for_plain_layers", "install", "install_layers", "install_megatron"]
