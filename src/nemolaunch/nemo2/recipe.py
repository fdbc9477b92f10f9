"""Plan → NeMo 2 recipe. Importing this module imports NeMo (10 to 20 s), so only training processes do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import nemo_run as run
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from nemo import lightning as nl
from nemo.collections import llm
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.recipes.precision import mixed_precision

from nemolaunch.errors import NemolaunchError
from nemolaunch.job import Job
from nemolaunch.nemo2 import kernels, loss
from nemolaunch.nemo2.settings import set_fields
from nemolaunch.planning import Plan
from nemolaunch.ranks.layout import (
    as_config_wants,
    exchange_fields,
    parallel_fields,
    split_fields,
)
from nemolaunch.ranks.loggers import wandb_id
from nemolaunch.ranks.start import start_checkpoint


def compile_recipe(plan: Plan) -> run.Partial:
    """Return the recipe named `plan.recipe` with every value of the plan set, ready for `llm.pretrain`.

    Only fields that the plan decides are changed, so that other versions of NeMo in the container accept the result.

    Raises:
        NemolaunchError: the installed NeMo has no such recipe.
    """
    module = getattr(llm, plan.recipe, None)
    if module is None or not hasattr(module, "pretrain_recipe"):
        raise NemolaunchError(f"the installed NeMo has no pretraining recipe {plan.recipe!r}")
    job = plan.job
    recipe = module.pretrain_recipe(
        dir=str(plan.run.root.parent),
        name=plan.run.root.name,
        num_nodes=job.launch.num_nodes,
        num_gpus_per_node=job.launch.num_gpus,
    )
    _set_model(recipe, plan, job)
    _set_parallelism(recipe, plan)
    _set_precision(recipe, job)
    _set_memory(recipe, job)
    _set_data(recipe, plan, job)
    loss.set_loss(recipe, plan)
    _set_optimizer(recipe, job)
    _set_trainer(recipe, plan, job)
    kernels.set_speed(recipe, job)
    _set_checkpoints(recipe, plan, job)
    _set_loggers(recipe, plan, job)
    _set_start(recipe, plan, job)
    set_fields(recipe, plan.model_row.recipe, job.recipe.set)
    return recipe


def _set_model(recipe: run.Partial, plan: Plan, job: Job) -> None:
    config = recipe.model.config
    for name, value in plan.overrides.items():
        setattr(config, name, as_config_wants(name, value))
    # NeMo checks context parallelism against the model's length but uses the data's: keep them equal
    config.seq_length = job.data.seq_length
    if plan.device == "cpu":
        # otherwise decided where the object is built; the CUDA extension for it does not exist on a CPU
        config.gradient_accumulation_fusion = False
    if "tokenizer" in recipe.model.__arguments__:
        recipe.model.tokenizer = _tokenizer(plan)


def _set_parallelism(recipe: run.Partial, plan: Plan) -> None:
    """Set the parallel sizes on the strategy only: it overwrites the model config when it connects."""
    strategy = recipe.trainer.strategy
    for name, value in parallel_fields(plan).items():
        setattr(strategy, name, value)
    for name, value in exchange_fields(plan).items():
        setattr(recipe.model.config, name, value)
    for name, value in split_fields(plan).items():
        if (getattr(strategy, name, None) or None) != (value or None):
            setattr(strategy, name, value)


FP8_PLUGINS = {
    "delayed": mixed_precision.bf16_with_fp8_mixed,
    "tensorwise": mixed_precision.bf16_with_fp8_current_scaling_mixed,
    "blockwise": mixed_precision.bf16_with_fp8_subchannel_scaling_mixed,
    "mxfp8": mixed_precision.bf16_with_mxfp8_mixed,
}


def _set_precision(recipe: run.Partial, job: Job) -> None:
    """Replace the whole precision plugin; some recipes have a list of them."""
    if job.batch.precision == "fp32":
        plugin = run.Config(
            nl.MegatronMixedPrecision,
            precision="32",
            params_dtype=torch.float32,
            pipeline_dtype=torch.float32,
            autocast_enabled=False,
            grad_reduce_in_fp32=True,
        )
    elif job.batch.fp8:
        plugin = FP8_PLUGINS[job.batch.fp8_recipe]()
        if job.batch.fp8_recipe == "mxfp8":
            _disable_param_gather_overlap(recipe)
    else:
        plugin = mixed_precision.bf16_mixed()
    recipe.trainer.plugins = plugin


def _disable_param_gather_overlap(recipe: run.Partial) -> None:
    """Gather weights before the step: MXFP8 gathers into the gradient buffer, which is in use during the step."""
    ddp = getattr(recipe.trainer.strategy, "ddp", None)
    if isinstance(ddp, run.Config):
        ddp.overlap_param_gather = False
    for callback in kernels.overlap_callbacks(recipe):
        callback.overlap_param_gather = False


def _set_memory(recipe: run.Partial, job: Job) -> None:
    m, config = job.memory, recipe.model.config
    if m.recompute_granularity or m.cpu_offloading:
        # the recipe's own preset could conflict: selective forbids num_layers, offloading forbids both
        config.recompute_granularity = m.recompute_granularity
        config.recompute_method = m.recompute_method
        config.recompute_num_layers = m.recompute_num_layers
    if m.recompute_modules:
        config.recompute_modules = list(m.recompute_modules)
    if m.cpu_offloading:
        config.cpu_offloading = True
        config.cpu_offloading_num_layers = m.cpu_offloading_layers
        config.cpu_offloading_activations = m.cpu_offloading_activations
        config.cpu_offloading_weights = m.cpu_offloading_weights


def _tokenizer(plan: Plan) -> run.Config:
    folder = plan.run.tokenizer if plan.run.tokenizer.is_dir() else plan.tokenizer
    source = str(folder or plan.job.model.hf_model_id)
    trusted = {"trust_remote_code": True} if plan.job.model.trust_remote_code else {}
    return run.Config(AutoTokenizer, pretrained_model_name=source, use_fast=True, **trusted)


def _set_data(recipe: run.Partial, plan: Plan, job: Job) -> None:
    """Replace the recipe's mock data: an unchanged recipe would silently train on random tokens."""
    if plan.stream is not None:
        # a placeholder, replaced in the built task, since NeMo's checkpoints record what is in the recipe
        recipe.data = run.Config(
            llm.MockDataModule,
            seq_length=job.data.seq_length,
            global_batch_size=job.batch.global_batch_size,
            micro_batch_size=job.batch.micro_batch_size,
            tokenizer=_tokenizer(plan),
        )
        return
    family = recipe.data.__fn_or_cls__.__module__.split(".")[3]
    paths: list[str] = []
    for weight, prefix in plan.blend:
        paths += [prefix] if weight is None else [str(weight), prefix]
    data = run.Config(
        _data_module(family),
        paths=paths,
        seq_length=job.data.seq_length,
        global_batch_size=job.batch.global_batch_size,
        micro_batch_size=job.batch.micro_batch_size,
        tokenizer=_tokenizer(plan),
        split=job.data.split,
        num_workers=job.data.num_workers,
        index_mapping_dir=plan.index_folder or job.data.index_mapping_dir,
        seed=job.batch.seed,
    )
    if family == "t5":
        data.seq_length_dec = recipe.data.seq_length_dec
    for name in ("reset_position_ids", "reset_attention_mask", "eod_mask_loss"):
        if job.get(name):
            setattr(data, name, True)
    recipe.data = data


def _data_module(family: str) -> Any:
    if family == "t5":
        from nemo.collections.llm.t5.data import PreTrainingDataModule

        return PreTrainingDataModule
    return llm.PreTrainingDataModule


def _set_optimizer(recipe: run.Partial, job: Job) -> None:
    o, config = job.optimizer, recipe.optim.config
    config.optimizer = o.optimizer
    config.lr = o.lr
    config.min_lr = o.min_lr
    config.weight_decay = o.weight_decay
    config.clip_grad = o.clip_grad
    config.adam_beta1 = o.adam_beta1
    config.adam_beta2 = o.adam_beta2
    config.adam_eps = o.adam_eps
    config.use_distributed_optimizer = not o.disable_dist_optim
    config.bf16 = job.batch.precision == "bf16"
    config.fp16 = False
    if job.memory.optim_cpu_offloading:
        # the switch alone offloads a fraction of 0.0, and only works with the precision-aware optimizer
        config.optimizer_cpu_offload = True
        config.optimizer_offload_fraction = job.memory.optim_cpu_offloading_frac
        config.use_precision_aware_optimizer = True
    elif o.optimizer != "adam" or o.disable_dist_optim:
        # some recipes turn it on, with 16-bit states; it only supports Adam with the distributed optimizer
        config.use_precision_aware_optimizer = False
        for name in ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype"):
            if name in config.__arguments__:
                delattr(config, name)
    # replaced by the plan's schedule in the built task, since NeMo's checkpoints record what is in the recipe
    recipe.optim.lr_scheduler = run.Config(
        nl.lr_scheduler.CosineAnnealingScheduler,
        max_steps=o.decay_steps or job.batch.max_steps,
        warmup_steps=o.warmup_steps,
        constant_steps=0,
        min_lr=o.min_lr,
    )
    if o.num_distributed_optimizer_instances > 1:
        recipe.trainer.strategy.num_distributed_optimizer_instances = o.num_distributed_optimizer_instances
    ddp = getattr(recipe.trainer.strategy, "ddp", None)
    if isinstance(ddp, run.Config) and o.disable_dist_optim:
        ddp.overlap_param_gather = False  # Megatron asserts that it is used with the distributed optimizer
    if job.guards.on_not_finite != "stop":
        # Megatron's own check would end the rank in the backward pass, before a guard can skip the step
        kernels.ddp_of(recipe).check_for_nan_in_grad = False


def _set_trainer(recipe: run.Partial, plan: Plan, job: Job) -> None:
    trainer, logging = recipe.trainer, job.logging
    trainer.num_nodes = job.launch.num_nodes
    trainer.devices = job.launch.num_gpus
    trainer.max_steps = job.batch.max_steps
    trainer.max_epochs = None
    trainer.val_check_interval = logging.val_check_interval
    trainer.limit_val_batches = logging.limit_val_batches
    trainer.limit_test_batches = 0
    trainer.log_every_n_steps = logging.log_every
    trainer.num_sanity_val_steps = 0
    trainer.accumulate_grad_batches = 1
    unwanted = {"ModelCheckpoint"}
    p = job.parallelism
    if p.expert_model_parallel_size * (p.expert_tensor_parallel_size or p.tensor_model_parallel_size) == 1:
        unwanted.add("DeepEPCallback")  # its dispatcher asserts that there are other ranks to send tokens to
    trainer.callbacks = [c for c in trainer.callbacks or [] if c.__fn_or_cls__.__name__ not in unwanted]


def _set_checkpoints(recipe: run.Partial, plan: Plan, job: Job) -> None:
    """Keep the newest checkpoints by samples consumed, each resumable with another layout too.

    `-last` is a link to the newest, not a second copy. Without `save_optim_on_train_end`, NeMo omits the optimizer
    from the checkpoint of the last step, which then cannot be resumed.
    """
    every = job.checkpoint.checkpoint_every
    recipe.log.ckpt = run.Config(
        nl.ModelCheckpoint,
        dirpath=str(plan.run.checkpoints),
        monitor="consumed_samples",
        mode="max",
        save_top_k=job.checkpoint.keep_latest,
        save_last="link",
        every_n_train_steps=every,
        train_time_interval=None if every else run.Config(timedelta, minutes=15),
        save_optim_on_train_end=True,
        filename=plan.checkpoint_prefix + "--{step}-{consumed_samples}",
    )
    strategy = recipe.trainer.strategy
    strategy.ckpt_async_save = not job.checkpoint.no_async_save
    if kernels.has_field(strategy, "ckpt_optim_fully_reshardable"):
        strategy.ckpt_optim_fully_reshardable = True
    # for NeMo's progress lines, rank 0 alone gathers timers, so its collectives no longer match other ranks'
    strategy.replace_progress_bar = False


def _set_loggers(recipe: run.Partial, plan: Plan, job: Job) -> None:
    # a separate folder: on every resume NeMo moves all files in it into run_0, run_1, …
    recipe.log.explicit_log_dir = str(plan.run.nemo_logs)
    recipe.log.log_dir = None
    recipe.log.use_datetime_version = False
    recipe.log.update_logger_directory = False
    recipe.log.tensorboard = run.Config(
        TensorBoardLogger, save_dir=str(plan.run.tensorboard), name="", version=""
    )
    if job.logging.wandb:
        name = job.logging.wandb_name or job.launch.experiment
        # a fixed id, so that every restart continues the same W&B run
        recipe.log.wandb = run.Config(
            WandbLogger,
            project=job.logging.wandb_project or job.launch.experiment,
            name=name,
            save_dir=str(plan.run.root),
            id=wandb_id(plan),
            resume="allow",
            config={},
        )


def _set_start(recipe: run.Partial, plan: Plan, job: Job) -> None:
    """Set where training starts: this run's last checkpoint, a named one, given weights, or from scratch."""
    start = start_checkpoint(plan)
    recipe.resume = run.Config(
        nl.AutoResume,
        resume_if_exists=True,
        resume_from_directory=str(plan.run.checkpoints),
        resume_ignore_no_checkpoint=True,
    )
    if start is not None:
        recipe.resume.resume_from_path = str(start)  # NeMo itself fails if the newest one is incomplete
    if job.model.nemo_model:
        recipe.resume.restore_config = run.Config(
            nl.RestoreConfig, path=job.model.nemo_model, load_model_state=True, load_optim_state=False
        )
