"""Whole models as NeMo builds them on one rank of a layout, without memory for their weights."""

from __future__ import annotations

import importlib
import inspect
import os
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import check_jobs

from nemolaunch.planning import compose
from truth import build, steps, verdict

_prepared = False


def prepare() -> None:
    """Replace what only exists on a GPU machine, as far as building a model needs it."""
    global _prepared
    if _prepared:
        return
    import megatron.core.extensions.transformer_engine as extension
    from megatron.core import utils
    from megatron.core.ssm import mamba_block, mamba_mixer
    from megatron.core.transformer import multi_latent_attention
    from nemo.collections.llm.gpt.model.megatron.hyena import hyena_layer_specs, hyena_mixer, hyena_utils
    from nemo.collections.llm.t5.model import t5
    from packaging.version import Version

    from nemolaunch.cpu import provider

    # latent attention uses Transformer Engine's linear layer as one that is replicated on every rank
    multi_latent_attention.TELinear = copied = _copied_linear()
    provider.CpuSpecProvider.linear = lambda self: copied  # type: ignore[method-assign]
    mamba_mixer.HAVE_MAMBA_SSM = True
    mamba_mixer.ExtendedRMSNorm = _gated_norm()
    multi_latent_attention.RotaryEmbedding = build.Nothing  # needs a device, and has no weights
    multi_latent_attention.YarnRotaryEmbedding = build.Nothing
    for module in (mamba_block, mamba_mixer, hyena_mixer, hyena_utils):  # for random weights, not needed here
        module.get_cuda_rng_tracker = lambda: SimpleNamespace(fork=lambda *_: nullcontext())
    for name in ("TENorm", "TELayerNormColumnParallelLinear", "TERowParallelLinear", "TEDotProductAttention"):
        setattr(hyena_layer_specs, name, getattr(extension, name))
    hyena_layer_specs.TELayerNormColumnParallelLinearFp8 = extension.TELayerNormColumnParallelLinear
    # these check whether Transformer Engine can be imported before they use the classes that replace it
    utils._te_version = Version("2.9")
    build.stand_in_for_fused_adam()
    for name in (
        "megatron.core.models.T5.t5_spec",
        "megatron.core.models.bert.bert_layer_specs",
        "nemo.collections.llm.bert.model.base",
    ):
        importlib.reload(importlib.import_module(name))
    t5.HAVE_TE = True
    _prepared = True


def _copied_linear() -> type:
    import torch

    class Linear(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, **_: Any) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(outputs, inputs))

    return Linear


def _gated_norm() -> type:
    import torch

    class Norm(torch.nn.Module):
        def __init__(self, size: int, **_: Any) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(size))

    return Norm


def parameters(jobs: list[tuple[dict[str, Any], list[int]]]) -> list[list[int]]:
    """Return for each job, given by its flags, the parameters of a rank of each of these pipeline stages."""
    prepare()
    return [[_of_stage(values, stage) for stage in stages] for values, stages in jobs]


def _of_stage(values: dict[str, Any], stage: int) -> int:
    job = verdict.StagedJob(compose(check_jobs.resolved(check_jobs.job(**values)), ()))
    try:
        for step in (verdict.compiled, verdict.constructed, verdict.connected):
            step(job)
        world = job.plan.world_size
        steps.place(job.strategy, world, rank=stage * world // job.values["pipeline_model_parallel_size"])
        chunks = job.config.virtual_pipeline_model_parallel_size
        return sum(_built(job.config, chunk) for chunk in (range(chunks) if chunks else [None]))
    finally:
        job.close()


def _built(config: Any, chunk: int | None) -> int:
    """Count the parameters of a model chunk on this rank."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from torch._subclasses.fake_tensor import FakeTensorMode

    for variable in [key for key in os.environ if key.startswith("NVTE_")]:
        del os.environ[
            variable
        ]  # Megatron sets them while building and rejects different values the next time
    if getattr(config, "multi_latent_attention", False):
        # NeMo selected the layers when it was imported, without Transformer Engine
        config.transformer_layer_spec = partial(get_gpt_decoder_block_spec, use_transformer_engine=True)
    known = inspect.signature(config.configure_model).parameters
    where = {"vp_stage": chunk} if chunk is not None and "vp_stage" in known else {}
    # BERT moves its weights, which fake tensors do not support; it is small
    fake = nullcontext() if build.kind_of(config) == "bert" else FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        model = config.configure_model(build.Tokenizer(), **where)
    return sum(parameter.numel() for parameter in model.parameters())
