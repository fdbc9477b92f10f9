"""Multi-latent attention, DeepSeek's, on a CPU."""

from __future__ import annotations

import importlib.util
from typing import Any


def install() -> None:
    """Let Megatron build it from the layers of `provider`, with its rotary tables on the CPU."""
    from megatron.core.models.common.embeddings.yarn_rotary_pos_embedding import YarnRotaryEmbedding

    from nemolaunch.cpu.provider import CpuSpecProvider

    build = YarnRotaryEmbedding.__init__

    def on_cpu(self: Any, *args: Any, **kwargs: Any) -> None:
        # otherwise torch is asked for a device by its number
        build(self, *args, **{**kwargs, "use_cpu_initialization": True})

    YarnRotaryEmbedding.__init__ = on_cpu
    if importlib.util.find_spec("megatron.core.transformer.mla_qk_norm_config"):  # since Megatron 0.19
        from megatron.core.transformer import mla_qk_norm_config

        mla_qk_norm_config.get_backend = lambda implementation: CpuSpecProvider()
