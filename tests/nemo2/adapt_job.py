"""Recipes with what a CPU cannot do, before and after `adapt`."""

from __future__ import annotations

from typing import Any


def _recipe(name: str) -> Any:
    from nemo.collections import llm

    return getattr(llm, name).pretrain_recipe(dir="unused", name="x", num_nodes=1, num_gpus_per_node=1)


def everything_dropped() -> dict[str, Any]:
    """A recipe with all of it turned on: what `adapt` says, what is left, and what a second call says."""
    import nemo_run as run
    import torch
    from nemo.collections.llm.recipes.precision.mixed_precision import bf16_with_fp8_mixed
    from nemo.lightning.pytorch.callbacks.megatron_comm_overlap import MegatronCommOverlapCallback

    from nemolaunch import cpu

    recipe = _recipe("gemma2_2b")
    recipe.trainer.plugins = [bf16_with_fp8_mixed()]
    recipe.trainer.callbacks.append(
        run.Config(MegatronCommOverlapCallback, tp_comm_overlap=True, defer_embedding_wgrad_compute=True)
    )
    recipe.trainer.strategy.use_te_rng_tracker = True
    model = {
        "cpu_offloading": True,
        "gradient_accumulation_fusion": True,
        "cross_entropy_fusion_impl": "te",
        "moe_token_dispatcher_type": "flex",
        "enable_cuda_graph": True,
    }
    for name, value in model.items():
        setattr(recipe.model.config, name, value)
    recipe.optim.config.optimizer_cpu_offload = True
    recipe.optim.config.use_precision_aware_optimizer = True
    recipe.optim.config.exp_avg_dtype = torch.bfloat16
    sentences = cpu.adapt(recipe)
    config = recipe.model.config
    return {
        "sentences": sentences,
        "again": cpu.adapt(recipe),
        "accelerator": recipe.trainer.accelerator,
        "left": [
            name
            for name, value in {
                **{name: getattr(config, name) for name in model},
                "masked_softmax_fusion": config.masked_softmax_fusion,
                "fp8": recipe.trainer.plugins[0].fp8,
                "fp8_param_gather": recipe.trainer.plugins[0].fp8_param_gather,
                "offload": recipe.optim.config.optimizer_cpu_offload,
                "precision_aware": recipe.optim.config.use_precision_aware_optimizer,
                "overlap": recipe.trainer.callbacks[-1].tp_comm_overlap,
                "deferred": recipe.trainer.callbacks[-1].defer_embedding_wgrad_compute,
                "rng": recipe.trainer.strategy.use_te_rng_tracker,
            }.items()
            if value and value not in ("native", "alltoall")
        ],
        "exp_avg_dtype": str(recipe.optim.config.exp_avg_dtype),
    }


def plain_recipe() -> list[str]:
    """What `adapt` says about a recipe a CPU can train as it is."""
    from nemolaunch import cpu

    return cpu.adapt(_recipe("llama3_8b"))


def refused(name: str, packed: bool = False, fsdp: bool = False) -> dict[str, str]:
    """The message of a refusal, and the accelerator the refused recipe is left with."""
    import nemo_run as run
    from nemo.collections import llm
    from nemo.collections.llm.gpt.data.packed_sequence import PackedSequenceSpecs

    from nemolaunch import cpu
    from nemolaunch.errors import NemolaunchError

    recipe = _recipe(name)
    if packed:
        specs = run.Config(PackedSequenceSpecs, packed_sequence_size=4096)
        recipe.data = run.Config(llm.SquadDataModule, packed_sequence_specs=specs)
    if fsdp:
        recipe.trainer.strategy.fsdp = "megatron"
    try:
        cpu.adapt(recipe)
    except NemolaunchError as error:
        return {"message": str(error), "accelerator": recipe.trainer.accelerator}
    raise AssertionError("not refused")
