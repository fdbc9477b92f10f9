"""Runs in a fork server's rank: compiles many plans and says what the compiled recipes hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def compile_all(plan_files: list[str]) -> dict[str, dict[str, Any]]:
    """By recipe name: the fields that flags set, as found in the compiled recipe; or the error it raised."""
    from nemolaunch.planning import Plan

    results: dict[str, dict[str, Any]] = {}
    for file in plan_files:
        plan = Plan.load(Path(file))
        try:
            results[plan.recipe] = _fields(plan)
        except Exception as error:
            results[plan.recipe] = {"error": f"{type(error).__name__}: {error}"}
    return results


def _fields(plan: Any) -> dict[str, Any]:
    from nemo_run.core.serialization.zlib_json import ZlibJSONSerializer

    from nemolaunch.nemo2.recipe import compile_recipe

    recipe = compile_recipe(plan)
    serializer = ZlibJSONSerializer()
    assert serializer.deserialize(serializer.serialize(recipe)) == recipe
    strategy, config, data, checkpoint = (
        recipe.trainer.strategy,
        recipe.model.config,
        recipe.data,
        recipe.log.ckpt,
    )
    return {
        "tensor_model_parallel_size": strategy.tensor_model_parallel_size,
        "pipeline_model_parallel_size": strategy.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": strategy.virtual_pipeline_model_parallel_size,
        "context_parallel_size": strategy.context_parallel_size,
        "expert_model_parallel_size": strategy.expert_model_parallel_size,
        "sequence_parallel": strategy.sequence_parallel,
        "num_nodes": recipe.trainer.num_nodes,
        "num_gpus": recipe.trainer.devices,
        "max_steps": recipe.trainer.max_steps,
        "scheduler steps": recipe.optim.lr_scheduler.max_steps,
        "warmup_steps": recipe.optim.lr_scheduler.warmup_steps,
        "val_check_interval": recipe.trainer.val_check_interval,
        "lr": recipe.optim.config.lr,
        "adam_beta2": recipe.optim.config.adam_beta2,
        "adam_eps": recipe.optim.config.adam_eps,
        "distributed optimizer": recipe.optim.config.use_distributed_optimizer,
        "data module": data.__fn_or_cls__.__name__,
        "paths": list(data.paths),
        "seq_length": data.seq_length,
        "model seq_length": config.seq_length,
        "global_batch_size": data.global_batch_size,
        "micro_batch_size": data.micro_batch_size,
        "tokenizer": data.tokenizer.pretrained_model_name,
        "recompute_granularity": config.recompute_granularity,
        "recompute_method": config.recompute_method,
        "recompute_num_layers": config.recompute_num_layers,
        "fp8": recipe.trainer.plugins.fp8,
        "fp8_recipe": getattr(recipe.trainer.plugins, "fp8_recipe", None),
        "gathers ahead": [
            getattr(part, "overlap_param_gather", None)
            for part in (strategy.ddp, *recipe.trainer.callbacks)
            if hasattr(part, "overlap_param_gather")
            or "CommOverlap" in str(getattr(part, "__fn_or_cls__", ""))
        ],
        "kernels": _kernels(recipe),
        "optimizer in last checkpoint": checkpoint.save_optim_on_train_end,
        "reshardable": strategy.ckpt_optim_fully_reshardable,
        "checkpoint_every": checkpoint.every_n_train_steps,
        "resume": recipe.resume.resume_if_exists,
        "layers": getattr(getattr(config, "transformer_layer_spec", None), "__name__", None)
        if "transformer_layer_spec" in config.__arguments__
        else None,
        "mean over tokens": config.calculate_per_token_loss,
        "average in collective": getattr(strategy.ddp, "average_in_collective", None),
    }


def _kernels(recipe: Any) -> dict[str, Any]:
    """What the flags of the part `speed` set."""
    config, strategy = recipe.model.config, recipe.trainer.strategy
    callbacks = [c for c in recipe.trainer.callbacks if "CommOverlap" in c.__fn_or_cls__.__name__]
    overlaps = ("overlap_grad_reduce", "overlap_param_gather")
    return {
        "attention_backend": config.attention_backend.name,
        "cuda_graphs": [config.cuda_graph_impl, strategy.use_te_rng_tracker],
        "tp_comm_overlap": [callback.tp_comm_overlap for callback in callbacks],
        **{name: [getattr(part, name, None) for part in (strategy.ddp, *callbacks)] for name in overlaps},
    }
