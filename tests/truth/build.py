"""Models as NeMo builds them: first and last stage, one layer of each kind, without memory for weights."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import check_jobs

_prepared = False


class Tokenizer:
    """The part of a tokenizer that building a model needs."""

    vocab_size = check_jobs.VOCABULARY
    eos_id = 0


def prepare() -> None:
    """Replace what only exists on a GPU machine, as far as its absence would hide a rule.

    This concerns Transformer Engine's version, its offload context and FusedAdam, and Mamba's kernels.
    """
    global _prepared
    if _prepared:
        return
    import torch
    from megatron.core.optimizer import optimizer_config
    from megatron.core.ssm import mamba_mixer
    from megatron.core.transformer import (
        cuda_graphs,
        multi_latent_attention,
        transformer_block,
        transformer_config,
    )

    transformer_config.is_te_min_version = optimizer_config.is_te_min_version = lambda *_, **__: True
    transformer_block.get_cpu_offload_context = lambda *_: (nullcontext(), None)
    _one_layer_of_each_kind(transformer_block)
    mamba_mixer.HAVE_MAMBA_SSM = True
    # like Transformer Engine's generator; memory for graphs is allocated later
    cuda_graphs.get_cuda_rng_tracker = lambda: SimpleNamespace(is_inference_rng_tracker=True)
    for name in ("graph_pool_handle", "set_stream"):
        setattr(torch.cuda, name, lambda *_: None)
    # needs a device, but imposes no rule
    multi_latent_attention.RotaryEmbedding = multi_latent_attention.YarnRotaryEmbedding = Nothing
    stand_in_for_fused_adam()
    _prepared = True


def stand_in_for_fused_adam() -> None:
    """Provide a FusedAdam, whose arguments Megatron inspects."""
    optimizers = ModuleType("transformer_engine.pytorch.optimizers")
    optimizers.FusedAdam = _FusedAdam  # type: ignore[attr-defined]
    for name in ("transformer_engine", "transformer_engine.pytorch"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules[optimizers.__name__] = optimizers


class Nothing:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


class _FusedAdam:
    def __init__(
        self,
        params: Any,
        master_weight_dtype: Any,
        exp_avg_dtype: Any,
        exp_avg_sq_dtype: Any,
        use_decoupled_grad: Any,
    ) -> None:
        raise NotImplementedError


def _one_layer_of_each_kind(transformer_block: Any) -> None:
    whole = transformer_block._get_block_submodules

    def trimmed(*args: Any, **kwargs: Any) -> Any:
        submodules = whole(*args, **kwargs)
        kinds: dict[str, Any] = {}
        for spec in submodules.layer_specs:
            kinds.setdefault(repr(spec), spec)
        submodules.layer_specs = list(kinds.values())
        return submodules

    transformer_block._get_block_submodules = trimmed


def choose_attention(config: Any, variables: Mapping[str, str]) -> None:
    """Run Megatron's check of the variables that select attention kernels, with which every model starts."""
    from megatron.core.models.common.language_module.language_module import LanguageModule

    with _exported(variables):
        LanguageModule._set_attention_backend(SimpleNamespace(config=config))


@contextmanager
def _exported(variables: Mapping[str, str]) -> Iterator[None]:
    """Export a job's variables, without other Transformer Engine variables, which Megatron sets while building."""
    before = dict(os.environ)
    for name in [key for key in os.environ if key.startswith("NVTE_")]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def model(model_class: Any, config: Any, stages: int, variables: Mapping[str, str]) -> Any:
    """Build what rank 0 would, let Megatron count the layers of every stage, and return the model."""
    from megatron.core.transformer.transformer_block import get_num_layers_to_build

    virtual = config.virtual_pipeline_model_parallel_size
    if virtual is not None:
        inspect.signature(model_class.configure_model).bind(None, vp_stage=1)  # as MegatronParallel calls it
    kind = kind_of(config)
    if kind == "gpt":
        for stage in range(stages):
            for chunk in range(virtual or 1):
                get_num_layers_to_build(config, None if virtual is None else chunk, stage)
    if kind == "mamba":
        return _mamba(config)
    if kind == "hyena":
        return _hyena(config)
    if kind in ("t5", "bert"):
        return _up_to_layers(config)
    with _exported(variables):
        return _configured(config)


def kind_of(config: Any) -> str:
    """Return which of Megatron's models a config builds."""
    names = [cls.__name__ for cls in type(config).__mro__]
    kinds = {"SSMConfig": "mamba", "HyenaConfig": "hyena", "T5Config": "t5", "BertConfig": "bert"}
    return next((kind for name, kind in kinds.items() if name in names), "gpt")


def _configured(config: Any) -> Any:
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from torch._subclasses.fake_tensor import FakeTensorMode

    if (
        config.multi_latent_attention
    ):  # NeMo selected the layers when it was imported, without Transformer Engine
        config.transformer_layer_spec = partial(get_gpt_decoder_block_spec, use_transformer_engine=True)
    known = inspect.signature(config.configure_model).parameters
    ends = {key: True for key in ("pre_process", "post_process") if key in known}
    if config.virtual_pipeline_model_parallel_size is not None:
        ends["vp_stage"] = 0  # type: ignore[assignment]
    with FakeTensorMode(allow_non_fake_inputs=True):
        return config.configure_model(Tokenizer(), **ends)


class _Reached(Exception):
    """Raised once a constructor has passed its checks."""


def _mamba(config: Any) -> None:
    """Build the mixer of one layer up to its first projection, and its context parallel part."""
    from megatron.core.process_groups_config import ProcessGroupCollection
    from megatron.core.ssm import mamba_mixer
    from megatron.core.ssm.mamba_context_parallel import MambaContextParallel

    if config.virtual_pipeline_model_parallel_size is not None:
        config.configure_model(Tokenizer())
    groups = ProcessGroupCollection.use_mpu_process_groups(required_pgs=["tp", "cp"])
    found: dict[str, Any] = {}

    def reached(*args: Any, **kwargs: Any) -> Any:
        raise _Reached

    make, mamba_mixer.build_module = mamba_mixer.build_module, reached
    mixer = mamba_mixer.MambaMixer.__new__(mamba_mixer.MambaMixer)
    submodules = mamba_mixer.MambaMixerSubmodules()
    try:
        mixer.__init__(config, submodules, config.hidden_size, pg_collection=groups)
    except _Reached:
        found = vars(mixer)
    finally:
        mamba_mixer.build_module = make
    MambaContextParallel(
        cp_group=groups.cp,
        d_inner_local_tp=found["d_inner_local_tp"],
        nheads_local_tp=found["nheads_local_tp"],
        ngroups_local_tp=found["ngroups_local_tp"],
        d_state=found["d_state"],
        conv1d_cp1=None,
        dt_bias_cp1=None,
        A_log_cp1=None,
        D_cp1=None,
        D_has_hdim=False,
    )


def _hyena(config: Any) -> None:
    """Check virtual stages only, because its layers need Transformer Engine's own classes."""
    if config.virtual_pipeline_model_parallel_size is not None:
        config.configure_model(Tokenizer())


def _up_to_layers(config: Any) -> None:
    """Build up to the selection of layers, which the CPU backend cannot replace."""
    config.transformer_layer_spec = _stop
    with suppress(_Reached):
        config.configure_model(Tokenizer())


def enter_experts(model: Any) -> None:
    """Enter a layer with experts, which checks its parallelism before it uses its input."""
    if model is None:
        return
    from megatron.core.transformer.moe.moe_layer import MoELayer

    for module in model.modules():
        if isinstance(module, MoELayer):
            module.train()
            route, module.router_and_preprocess = getattr(module, "router_and_preprocess", None), _stop
            with suppress(_Reached):
                module.forward(None)
            module.router_and_preprocess = route
            return


def _stop(*args: Any, **kwargs: Any) -> Any:
    raise _Reached
