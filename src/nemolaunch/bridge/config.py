"""Plan → Megatron-Bridge's `ConfigContainer`. Importing this module imports Bridge, so only training processes do."""

from __future__ import annotations

from typing import Any

import torch
from megatron.bridge.training import mixed_precision
from megatron.bridge.training.config import (
    CheckpointConfig,
    ConfigContainer,
    DistributedDataParallelConfig,
    DistributedInitConfig,
    GPTDatasetConfig,
    LoggerConfig,
    OptimizerConfig,
    RerunStateMachineConfig,
    RNGConfig,
    SchedulerConfig,
    TokenizerConfig,
    TrainingConfig,
    ValidationConfig,
)

from nemolaunch.bridge.objective import set_objective
from nemolaunch.bridge.profile import nsys
from nemolaunch.bridge.provider import provider
from nemolaunch.bridge.settings import set_fields
from nemolaunch.cpu.adapt import adapt_model
from nemolaunch.planning import Plan
from nemolaunch.ranks.layout import parameter_type
from nemolaunch.ranks.start import start_checkpoint

FP8_RECIPES = {
    "delayed": mixed_precision.bf16_with_fp8_delayed_scaling_mixed,
    "tensorwise": mixed_precision.bf16_with_fp8_current_scaling_mixed,
    "blockwise": mixed_precision.bf16_with_fp8_subchannel_scaling_mixed,
    "mxfp8": mixed_precision.bf16_with_mxfp8_mixed,
}


def compile_config(plan: Plan) -> tuple[ConfigContainer, list[str]]:
    """Return the configuration that trains a plan, and what this machine does not support of it, in sentences."""
    job = plan.job
    config = ConfigContainer(
        model=provider(plan),
        train=TrainingConfig(
            train_iters=plan.max_steps,
            global_batch_size=job.batch.global_batch_size,
            micro_batch_size=job.batch.micro_batch_size,
        ),
        validation=_validation(plan),
        optimizer=_optimizer(plan),
        scheduler=_scheduler(plan),
        ddp=_gradients(plan),
        dataset=_data(plan),
        tokenizer=_tokenizer(plan),
        logger=LoggerConfig(
            log_interval=job.logging.log_every,
            tensorboard_dir=str(plan.run.tensorboard),
            log_throughput=False,
        ),
        checkpoint=_checkpoints(plan),
        rng=RNGConfig(seed=job.batch.seed, te_rng_tracker=job.speed.cuda_graphs),
        dist=_distributed(plan),
        # nemolaunch's guards look at loss and gradients before each update
        rerun_state_machine=RerunStateMachineConfig(check_for_nan_in_loss=False),
        mixed_precision=_precision(plan),
        profiling=nsys(plan),
    )
    set_objective(config, plan)
    set_fields(config, plan)
    dropped = ["fp8: trains in 16 bits"] if plan.device == "cpu" and job.batch.fp8 else []
    if plan.device == "cpu":
        adapt_model(config.model, dropped.append)
    return config, [f"not supported on the CPU: {what}" for what in dict.fromkeys(dropped)]


def _precision(plan: Plan) -> mixed_precision.MixedPrecisionConfig:
    batch = plan.job.batch
    if batch.precision == "fp32":
        return mixed_precision.MixedPrecisionConfig(
            fp32=True,
            params_dtype=torch.float32,
            pipeline_dtype=torch.float32,
            autocast_enabled=False,
            grad_reduce_in_fp32=True,
        )
    if batch.fp8 and plan.device != "cpu":
        return FP8_RECIPES[batch.fp8_recipe]()
    return mixed_precision.bf16_mixed()


def _validation(plan: Plan) -> ValidationConfig:
    logging = plan.job.logging
    ours = plan.validation_sets or plan.stream is not None  # `ValidationSets` evaluates those
    batches = 0 if ours else logging.limit_val_batches
    return ValidationConfig(eval_interval=logging.val_check_interval, eval_iters=batches)


def _optimizer(plan: Plan) -> OptimizerConfig:
    job, o = plan.job, plan.job.optimizer
    config = OptimizerConfig(
        optimizer=o.optimizer,
        lr=o.lr,
        min_lr=o.min_lr,
        weight_decay=o.weight_decay,
        clip_grad=o.clip_grad,
        adam_beta1=o.adam_beta1,
        adam_beta2=o.adam_beta2,
        adam_eps=o.adam_eps,
        use_distributed_optimizer=not o.disable_dist_optim,
        bf16=job.batch.precision == "bf16",
        params_dtype=parameter_type(job),
    )
    if job.memory.optim_cpu_offloading and plan.device != "cpu":
        config.optimizer_cpu_offload = True
        config.optimizer_offload_fraction = job.memory.optim_cpu_offloading_frac
        config.use_precision_aware_optimizer = True
    elif _has_small_moments(plan):
        config.use_precision_aware_optimizer = True
        config.main_grads_dtype = config.exp_avg_dtype = config.exp_avg_sq_dtype = torch.bfloat16
    return config


def _has_small_moments(plan: Plan) -> bool:
    """Return whether the recipe, DeepSeek V3's, keeps gradients and Adam's moments in bf16."""
    o = plan.job.optimizer
    small = plan.model_row.recipe.moment_bytes is not None
    return small and plan.device != "cpu" and o.optimizer == "adam" and not o.disable_dist_optim


def _scheduler(plan: Plan) -> SchedulerConfig:
    """Return a schedule of the plan's length. `PlannedOptimizer` sets the rate and the decay of each step."""
    decay = plan.job.optimizer.weight_decay
    return SchedulerConfig(
        lr_decay_style="constant",
        lr_decay_iters=plan.max_steps,
        lr_warmup_iters=0,
        start_weight_decay=decay,
        end_weight_decay=decay,
        weight_decay_incr_style="constant",
        override_opt_param_scheduler=True,
    )


def _gradients(plan: Plan) -> DistributedDataParallelConfig:
    job, recipe = plan.job, plan.model_row.recipe
    sharded = not job.optimizer.disable_dist_optim
    speed = job.speed
    reduce, gather = speed.overlap_grad_reduce, speed.overlap_param_gather
    gather = recipe.overlap_param_gather if gather is None else gather
    return DistributedDataParallelConfig(
        use_distributed_optimizer=sharded,
        num_distributed_optimizer_instances=job.optimizer.num_distributed_optimizer_instances,
        grad_reduce_in_fp32=True,
        average_in_collective=True,
        check_for_nan_in_grad=job.guards.on_not_finite == "stop",
        overlap_grad_reduce=recipe.overlap_grad_reduce if reduce is None else reduce,
        overlap_param_gather=gather and sharded,
    )


def _data(plan: Plan) -> GPTDatasetConfig:
    job = plan.job
    weights = [weight for weight, _ in plan.blend if weight is not None]
    return GPTDatasetConfig(
        seq_length=plan.seq_length,
        random_seed=job.batch.seed,
        blend=([prefix for _, prefix in plan.blend], weights or None) if plan.stream is None else None,
        split=job.data.split,
        path_to_cache=plan.index_folder or job.data.index_mapping_dir,
        num_workers=job.data.num_workers,
        dataloader_type="single" if plan.stream is None else "external",
        create_attention_mask=False,
        reset_attention_mask=job.data.reset_attention_mask,
        reset_position_ids=job.data.reset_position_ids,
        eod_mask_loss=job.data.eod_mask_loss,
        # no mask is built; but otherwise inner pipeline stages get no batch, and with it no ends of documents
        skip_getting_attention_mask_from_dataset=not job.data.reset_attention_mask,
    )


def _tokenizer(plan: Plan) -> TokenizerConfig:
    folder = plan.run.tokenizer if plan.run.tokenizer.is_dir() else plan.tokenizer
    # Bridge derives its other fields from these, again when it validates the whole configuration
    trusted = {"trust_remote_code": True} if plan.job.model.trust_remote_code else {}
    return TokenizerConfig(
        tokenizer_type="HuggingFaceTokenizer",
        tokenizer_model=str(folder or plan.job.model.hf_model_id),
        hf_tokenizer_kwargs=trusted,
    )


def _checkpoints(plan: Plan) -> CheckpointConfig:
    """Save in the run's own folder, and resume from its newest complete checkpoint, else from the one that is named.

    Bridge is told which one that is. Its own record of it is not replaced atomically, and if it names none, Bridge
    silently trains from scratch.
    """
    wanted, start = plan.job.checkpoint, start_checkpoint(plan)
    return CheckpointConfig(
        save=str(plan.run.checkpoints),
        load=str(start) if start else None,
        # its weights only: Bridge starts at step 0, with a new optimizer, unless there is a checkpoint to resume from
        pretrained_checkpoint=plan.job.model.nemo_model,
        save_interval=wanted.checkpoint_every,
        most_recent_k=wanted.keep_latest,
        ckpt_format="torch_dist",
        async_save=not wanted.no_async_save,
        async_strategy="mcore" if plan.device == "cpu" else "nvrx",
        fully_parallel_save=True,
        dist_ckpt_optim_fully_reshardable=True,
    )


def _distributed(plan: Plan) -> DistributedInitConfig:
    found: dict[str, Any] = {"distributed_backend": "gloo"} if plan.device == "cpu" else {}
    return DistributedInitConfig(use_gloo_process_groups=True, **found)
