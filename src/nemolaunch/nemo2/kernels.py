"""Kernels, CUDA graphs and communication overlap of a recipe: what `--attention-backend` and similar flags set."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import nemo_run as run
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.transformer.enums import AttnBackend
from nemo.lightning.pytorch.callbacks.megatron_comm_overlap import MegatronCommOverlapCallback

from nemolaunch.job import Job

# Fields of both Megatron's gradient buffers and NeMo's callback.
OVERLAPS = ("overlap_grad_reduce", "overlap_param_gather")


def set_speed(recipe: run.Partial, job: Job) -> None:
    """Set the values that the job gives; everything else stays as in the recipe."""
    speed = job.speed
    if speed.attention_backend is not None:
        recipe.model.config.attention_backend = AttnBackend[speed.attention_backend]
    if speed.attention_backend == "local" and importlib.util.find_spec("scaled_masked_softmax_cuda") is None:
        recipe.model.config.masked_softmax_fusion = False  # Megatron assumes that Apex is installed
    if speed.cuda_graphs:
        _capture_layers(recipe)
    if speed.tp_comm_overlap is not None:
        _overlap_tensor_parallel(recipe, speed.tp_comm_overlap)
    for name in OVERLAPS:
        value = getattr(speed, name)
        if value is not None:
            # with several data parallel ranks, the callback overrides the gradient buffers' own setting
            for part in (ddp_of(recipe), *overlap_callbacks(recipe)):
                setattr(part, name, value)


def _capture_layers(recipe: run.Partial) -> None:
    """Capture each layer's forward and backward pass as a graph, with a random generator that graphs support.

    NVIDIA's scripts set `enable_cuda_graph`. Megatron-Core 0.15 treats that as a deprecated name and rejects it
    when NeMo validates the config again, which happens whenever a strategy connects.
    """
    config = recipe.model.config
    if has_field(config, "cuda_graph_impl"):
        config.cuda_graph_impl = "local"
    else:
        config.enable_cuda_graph = True
    recipe.trainer.strategy.use_te_rng_tracker = True


def _overlap_tensor_parallel(recipe: run.Partial, overlap: bool) -> None:
    """Set the overlap on NeMo's callback, which creates Transformer Engine's buffers; add it if there is none.

    An added callback also controls data parallel communication, which is kept as in the recipe.
    """
    callbacks = overlap_callbacks(recipe)
    if not callbacks and overlap:
        ddp = ddp_of(recipe)
        kept = {name: getattr(ddp, name) for name in OVERLAPS}
        callbacks = [run.Config(MegatronCommOverlapCallback, **kept)]
        recipe.trainer.callbacks = [*(recipe.trainer.callbacks or []), *callbacks]
    for callback in callbacks:
        callback.tp_comm_overlap = overlap


def overlap_callbacks(recipe: run.Partial) -> list[Any]:
    """Return the recipe's callbacks that control communication overlap: one or none."""
    found = recipe.trainer.callbacks or []
    return [c for c in found if c.__fn_or_cls__.__name__ == MegatronCommOverlapCallback.__name__]


def ddp_of(recipe: run.Partial) -> run.Config:
    """Return the configuration of gradient buffers, created if the recipe only names Megatron's."""
    strategy = recipe.trainer.strategy
    if not isinstance(getattr(strategy, "ddp", None), run.Config):
        strategy.ddp = run.Config(DistributedDataParallelConfig, check_for_nan_in_grad=True)
    return strategy.ddp


def has_field(config: run.Config, name: str) -> bool:
    """Return whether the class behind a config accepts that argument, which depends on the version."""
    return name in inspect.signature(config.__fn_or_cls__).parameters
