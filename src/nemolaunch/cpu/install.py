"""Substitute CPU classes for those of CUDA and Transformer Engine that Megatron and NeMo use.

The recipe, the model's configuration and the checkpoint's context stay exactly as on a GPU machine: nothing in
this package is named in them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from nemolaunch.cpu import bert
from nemolaunch.cpu.versions import check_versions
from nemolaunch.errors import NemolaunchError
from nemolaunch.ranks.megatron_import import skip_inference_allocator
from nemolaunch.system.import_hooks import after_import, during_import

_installed = False


def install() -> None:
    """Turn this process into a CPU rehearsal. A second call does nothing.

    Must be called before `nemo.collections.llm` is imported, since some of its modules copy the layer classes on
    import. Imports torch and Megatron (a few seconds), not NeMo. Raises `NemolaunchError` on a machine with a GPU,
    with Transformer Engine installed, or with an unsupported combination of NeMo and Megatron-Core, and
    `RuntimeError` if called too late.
    """
    global _installed
    if _installed:
        return
    if "nemo.collections.llm" in sys.modules:
        raise RuntimeError("nemolaunch.cpu.install() must be called before nemo.collections.llm is imported")
    check_versions()
    if importlib.util.find_spec("transformer_engine"):
        raise NemolaunchError(
            "Transformer Engine is installed, but needs a GPU and would conflict with the CPU rehearsal. "
            "Rehearse in an environment without the package transformer_engine."
        )
    install_megatron()
    bert.install()
    _flag_after_import()
    _installed = True


def install_megatron() -> None:
    """Substitute the classes and functions of Megatron, whichever framework trains with it."""
    skip_inference_allocator()
    from nemolaunch.cpu import activation, delta, device, moe, optim, scan

    during_import(scan.MIXER, scan.modules())
    during_import(delta.COMMON, delta.modules())

    device.install()
    optim.install()
    moe.install()
    activation.install()
    _install_layers()
    _fix_megatron()


def install_layers() -> None:
    """Replace only Transformer Engine's layers and optimizer by plain PyTorch, for a GPU without Transformer Engine.

    Must be called before `nemo.collections.llm` is imported. Raises `NemolaunchError` with an unsupported combination
    of NeMo and Megatron-Core.
    """
    global _installed
    if _installed:
        return
    check_versions()
    skip_inference_allocator()
    from nemolaunch.cpu import optim

    optim.install()
    _install_layers()
    _restore_fp32_parameters()
    _flag_after_import()
    _installed = True


# The modules that describe layers of Transformer Engine, where Megatron has them; the first is imported by the others
LAYER_SPECS = (
    "megatron.core.extensions.transformer_engine_spec_provider",
    "megatron.core.models.gpt.gpt_layer_specs",
    "megatron.core.models.gpt.moe_module_specs",
    "megatron.core.models.gpt.experimental_attention_variant_module_specs",
    "megatron.core.transformer.multi_token_prediction",
)


def _install_layers() -> None:
    import megatron.core.extensions.transformer_engine as extension
    from megatron.core import parallel_state
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.models.gpt import gpt_layer_specs
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
    from megatron.core.transformer import transformer_block

    from nemolaunch.cpu import attention, grouped, latent, norms, provider

    extension.TEColumnParallelLinear = ColumnParallelLinear
    extension.TERowParallelLinear = RowParallelLinear
    extension.TELayerNormColumnParallelLinear = norms.LayerNormColumnParallelLinear
    extension.TEColumnParallelGroupedLinear = grouped.ColumnParallelGroupedLinear
    extension.TERowParallelGroupedLinear = grouped.RowParallelGroupedLinear
    extension.TENorm = norms.Norm
    extension.TEDotProductAttention = attention.CoreAttention
    for name in LAYER_SPECS:
        if importlib.util.find_spec(name):
            importlib.import_module(name).TESpecProvider = provider.CpuSpecProvider  # type: ignore[attr-defined]
    gpt_layer_specs.TENorm = norms.Norm
    transformer_block.LayerNormImpl = norms.Norm

    def rotary(t: Any, freqs: Any, interleaved: bool = False, **_: Any) -> Any:
        return rope_utils._apply_rotary_pos_emb_bshd(t, freqs, rotary_interleaved=interleaved)

    def rotary_of_packed(t: Any, cu_seqlens: Any, freqs: Any, **_: Any) -> Any:
        group = parallel_state.get_context_parallel_group()
        return rope_utils._apply_rotary_pos_emb_thd(t, cu_seqlens, freqs, cp_group=group)

    rope_utils.fused_apply_rotary_pos_emb = rotary
    rope_utils.fused_apply_rotary_pos_emb_thd = rotary_of_packed
    latent.install()


def _fix_megatron() -> None:
    """Patch code in Megatron, NeMo and multiprocessing that only works with NCCL, bfloat16 or a GPU."""
    import multiprocessing.spawn as spawn

    from megatron.core.pipeline_parallel import p2p_communication
    from megatron.core.timers import Timers

    # NeMo's ProgressPrinter reads the timers on rank 0 only. With none running that is an empty all-gather, which
    # gloo still counts on rank 0, so that its next collective never matches the others'.
    all_timers = Timers.get_all_timers_string

    def get_all_timers_string(self: Timers, names: Any = None, *args: Any, **kwargs: Any) -> str | None:
        return all_timers(self, names, *args, **kwargs) if names or self._timers else None

    Timers.get_all_timers_string = get_all_timers_string

    _restore_fp32_parameters()
    _recompute_without_fp8()
    _recompute_without_compiling()

    # A stage frees its output as soon as the send is queued. A CUDA stream orders the two; gloo would send
    # whatever the memory contains by then. A detached tensor keeps the storage until the send is done.
    p2p_ops = p2p_communication._p2p_ops

    def detached_p2p_ops(*, tensor_send_prev: Any, tensor_send_next: Any, **kwargs: Any) -> Any:
        send_prev, send_next = (t if t is None else t.detach() for t in (tensor_send_prev, tensor_send_next))
        return p2p_ops(tensor_send_prev=send_prev, tensor_send_next=send_next, **kwargs)

    p2p_communication._p2p_ops = detached_p2p_ops

    # Each rank's first save spawns a manager process for the writers' results queue. Spawning imports `__main__`
    # again, and with it possibly NeMo: 10 s and half a GB per rank, for a process that only holds a queue.
    preparation = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = preparation(name)
        if name.startswith("SyncManager"):
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    spawn.get_preparation_data = get_preparation_data

    # silence "CPU RNG state changed within GPU RNG context": here they are the same generator
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)


def _recompute_without_fp8() -> None:
    """Provide what Megatron uses of Transformer Engine when it recomputes single modules, in any precision."""
    from megatron.core.tensor_parallel import random

    random.FP8GlobalStateManager = SimpleNamespace(is_fp8_enabled=lambda: False)
    random.fp8_autocast = random.activation_recompute_forward = lambda **_: contextlib.nullcontext()


def _recompute_without_compiling() -> None:
    """Copy recomputed outputs into the storage that they were freed from, as Megatron did before 0.19.

    Since then it shares the memory by a C++ extension, which the first use compiles. That needs a compiler, and a run
    killed meanwhile leaves a lock in the user's cache, for which torch waits for ever in every later run.
    """
    from megatron.core.tensor_parallel import random

    if hasattr(random, "_get_share_storage"):
        random._get_share_storage = lambda: _copy_storage


def _copy_storage(freed: Any, recomputed: Any) -> None:
    source, target = recomputed.untyped_storage(), freed.untyped_storage()
    target.resize_(source.nbytes())
    target.copy_(source)  # unlike `Tensor.copy_`, no change that autograd would object to


def _restore_fp32_parameters() -> None:
    """Let the distributed optimizer load its state with float32 parameters.

    It then restores into views of the parameters themselves, which autograd rejects; bfloat16 parameters have separate
    main copies.
    """
    import torch
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    DistributedOptimizer.load_state_dict = torch.no_grad()(DistributedOptimizer.load_state_dict)


# The model modules' flag selects the Transformer Engine spec, which masks causally; with the data modules' flag, no
# mask of sequence length squared is built for every sample
FLAGGED = {
    "nemo.collections.llm.gpt.model": ("base", "llama_embedding"),
    "nemo.collections.llm.gpt.data": ("pre_training", "mock"),
    bert.PACKAGE: ("base",),
}


def _flag_after_import() -> None:
    """Set the flag in NeMo's modules that Transformer Engine is available, right after they are imported.

    Not earlier: DeepSeek's module copies the flag and then queries Transformer Engine's version.
    """
    for package in FLAGGED:
        after_import(package, _flag)


def _flag(package: ModuleType) -> None:
    for part in FLAGGED[package.__name__]:
        sys.modules[f"{package.__name__}.{part}"].HAVE_TE = True  # type: ignore[attr-defined]
    if package.__name__ == bert.PACKAGE:
        bert.complete(sys.modules[f"{bert.PACKAGE}.base"])
