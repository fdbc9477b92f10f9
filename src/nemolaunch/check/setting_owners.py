"""Paths of the compiled recipe that `--set` may not change, because a flag or the plan decides them.

`nemo2/recipe.py` writes every one of them; a test compares what it writes with these tables.
"""

from __future__ import annotations

import dataclasses

from nemolaunch.catalogue import Architecture
from nemolaunch.catalogue.recipe_fields import replaced_by
from nemolaunch.catalogue.yamlform import FIXED as _CODE
from nemolaunch.job import Job, spec_of
from nemolaunch.resolve.settings import SETTABLE

_STRATEGY = {
    "tensor_model_parallel_size": "tensor_model_parallel_size",
    "pipeline_model_parallel_size": "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size": "virtual_pipeline_model_parallel_size",
    "context_parallel_size": "context_parallel_size",
    "sequence_parallel": "sequence_parallel",
    "expert_model_parallel_size": "expert_model_parallel_size",
    "expert_tensor_parallel_size": "expert_tensor_parallel_size",
    "num_distributed_optimizer_instances": "num_distributed_optimizer_instances",
    "num_layers_in_first_pipeline_stage": "pipeline_model_parallel_size",
    "num_layers_in_last_pipeline_stage": "pipeline_model_parallel_size",
    "account_for_embedding_in_pipeline_split": "pipeline_model_parallel_size",
    "account_for_loss_in_pipeline_split": "pipeline_model_parallel_size",
    "pipeline_dtype": "precision",
    "ckpt_async_save": "no_async_save",
}
_MODEL = {
    "seq_length": "seq_length",
    "attention_backend": "attention_backend",
    "tp_comm_overlap": "tp_comm_overlap",
    "cuda_graph_impl": "cuda_graphs",
    "enable_cuda_graph": "cuda_graphs",
    "recompute_granularity": "recompute_granularity",
    "recompute_method": "recompute_method",
    "recompute_num_layers": "recompute_num_layers",
    "recompute_modules": "recompute_modules",
    "moe_z_loss_coeff": "moe_z_loss_coeff",
    "cpu_offloading": "cpu_offloading",
    "cpu_offloading_num_layers": "cpu_offloading_layers",
    "cpu_offloading_activations": "cpu_offloading_activations",
    "cpu_offloading_weights": "cpu_offloading_weights",
}
_DDP = {
    "overlap_grad_reduce": "overlap_grad_reduce",
    "overlap_param_gather": "overlap_param_gather",
    "use_distributed_optimizer": "disable_dist_optim",
    "check_for_nan_in_grad": "on_not_finite",
}
_PRECISION = {
    "precision": "precision",
    "params_dtype": "precision",
    "pipeline_dtype": "precision",
    "autocast_enabled": "precision",
    "autocast_dtype": "precision",
    "bf16": "precision",
    "fp16": "precision",
    "fp32": "precision",
    "fp8": "fp8",
    "fp8_recipe": "fp8_recipe",
}
_DATA = {
    "paths": "dataset_dir",
    "seq_length": "seq_length",
    "global_batch_size": "global_batch_size",
    "micro_batch_size": "micro_batch_size",
    "tokenizer": "hf_model_id",
    "split": "split",
    "reset_position_ids": "reset_position_ids",
    "rampup_batch_size": "rampup_batch_size",
    "reset_attention_mask": "reset_attention_mask",
    "eod_mask_loss": "eod_mask_loss",
    "create_attention_mask": "reset_attention_mask",
    "num_workers": "num_workers",
    "index_mapping_dir": "index_mapping_dir",
    "seed": "seed",
}
_OPTIMIZER = {
    "optimizer": "optimizer",
    "lr": "lr",
    "min_lr": "min_lr",
    "weight_decay": "weight_decay",
    "clip_grad": "clip_grad",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_eps": "adam_eps",
    "use_distributed_optimizer": "disable_dist_optim",
    "optimizer_cpu_offload": "optim_cpu_offloading",
    "optimizer_offload_fraction": "optim_cpu_offloading_frac",
    "overlap_param_gather": "overlap_param_gather",
}
_SCHEDULE = {
    "max_steps": "decay_steps",
    "warmup_steps": "warmup_steps",
    "constant_steps": "constant_steps",
    "min_lr": "min_lr",
}
_TRAINER = {
    "num_nodes": "num_nodes",
    "devices": "num_gpus",
    "accelerator": "device",
    "max_steps": "max_steps",
    "max_epochs": "max_steps",
    "min_steps": "max_steps",
    "min_epochs": "max_steps",
    "limit_train_batches": "max_steps",
    "overfit_batches": "max_steps",
    "max_time": "time",
    "fast_dev_run": "max_steps",
    "val_check_interval": "val_check_interval",
    "limit_val_batches": "limit_val_batches",
    "log_every_n_steps": "log_every",
    "accumulate_grad_batches": "global_batch_size",
    "gradient_clip_val": "clip_grad",
    "precision": "precision",
    "profiler": "profile",
    "default_root_dir": "output_dir",
}
_CHECKPOINT = {
    "dirpath": "output_dir",
    "save_top_k": "keep_latest",
    "every_n_train_steps": "checkpoint_every",
    "train_time_interval": "checkpoint_every",
}
_LOG = {"name": "experiment", "explicit_log_dir": "output_dir", "log_dir": "output_dir", "wandb": "wandb"}

# path -> the field of the job that decides it
OWNED: dict[str, str] = {
    f"{root}.{name}": field
    for root, names in {
        "trainer": _TRAINER,
        "trainer.strategy": _STRATEGY,
        "trainer.strategy.ddp": _DDP,
        "trainer.plugins": _PRECISION,
        "model.config": _MODEL,
        "optim.config": _OPTIMIZER,
        "optim.lr_scheduler": _SCHEDULE,
        "data": _DATA,
        "log": _LOG,
        "log.ckpt": _CHECKPOINT,
        "model": {"tokenizer": "hf_model_id"},
    }.items()
    for name, field in names.items()
}

# field of the job -> the name of NeMo's that takes the same values
SAME_VALUE = {
    "num_gpus": "devices",
    "log_every": "log_every_n_steps",
    "keep_latest": "save_top_k",
    "checkpoint_every": "every_n_train_steps",
    "cpu_offloading_layers": "cpu_offloading_num_layers",
    "optim_cpu_offloading": "optimizer_cpu_offload",
    "optim_cpu_offloading_frac": "optimizer_offload_fraction",
}

# what lies below these
OWNED_PARTS: dict[str, str] = {"optim.lr_scheduler": "warmup_steps", "resume": "resume", "log.wandb": "wandb"}

# path -> the fields that decide it if they are not at their defaults; without them, it may be set
OWNED_WHILE: dict[str, tuple[str, ...]] = {
    "model.config.calculate_per_token_loss": ("objective", "eod_mask_loss"),
    "model.config.use_transformer_engine_full_layer_spec": ("objective",),
    "trainer.strategy.ddp.average_in_collective": ("objective", "eod_mask_loss"),
    "model.config.overlap_p2p_comm": ("virtual_pipeline_model_parallel_size",),
    "model.config.batch_p2p_comm": ("virtual_pipeline_model_parallel_size",),
    "model.config.masked_softmax_fusion": ("attention_backend",),
    "trainer.strategy.use_te_rng_tracker": ("cuda_graphs",),
    **dict.fromkeys(
        (
            "optim.config.use_precision_aware_optimizer",
            "optim.config.main_grads_dtype",
            "optim.config.main_params_dtype",
            "optim.config.exp_avg_dtype",
            "optim.config.exp_avg_sq_dtype",
        ),
        ("optim_cpu_offloading", "optimizer", "disable_dist_optim"),
    ),
}

# path -> why it is always as nemolaunch sets it
FIXED: dict[str, str] = {
    "trainer.limit_test_batches": "pretraining has no test set",
    "trainer.num_sanity_val_steps": "a validation before the first step would not be recorded as one",
    "trainer.logger": "TensorBoard files are always written; --wandb and --mlflow add loggers",
    "trainer.callbacks": "metrics, guards and checkpoints depend on these callbacks",
    "trainer.barebones": "metrics, guards and checkpoints would be off",
    "trainer.plugins": "--precision and --fp8 choose the plugin",
    "trainer.enable_checkpointing": "resuming a run needs its checkpoints",
    "model.config.transformer_layer_spec": "it belongs to the code of NeMo's model",
    "trainer.strategy.ckpt_optim_fully_reshardable": "checkpoints can be resumed in any parallel layout",
    "trainer.strategy.ckpt_save_optimizer": "a run can only be resumed with the optimizer's state",
    "trainer.strategy.ckpt_load_optimizer": "a run can only be resumed with the optimizer's state",
    "trainer.strategy.replace_progress_bar": "NeMo's progress lines can block the ranks",
    "data.init_consumed_samples": "a resumed run reads it from the checkpoint",
    "data.init_global_step": "a resumed run reads it from the checkpoint",
    "optim.config.decoupled_lr": "the schedule sets one learning rate for all weights",
    "optim.config.decoupled_min_lr": "the schedule sets one learning rate for all weights",
    "optim.lr_mult": "the schedule sets one learning rate for all weights",
    "log.use_datetime_version": "the run folder has a fixed layout",
    "log.update_logger_directory": "the run folder has a fixed layout",
    "log.version": "the run folder has a fixed layout",
    "log.tensorboard": "TensorBoard files are always written to the run folder",
    "log.ckpt.filename": "runs are resumed by the names of their checkpoints",
    "log.ckpt.monitor": "the newest checkpoints are kept; --keep-latest sets how many",
    "log.ckpt.mode": "the newest checkpoints are kept; --keep-latest sets how many",
    "log.ckpt.save_last": "runs are resumed from the link to the last checkpoint",
    "log.ckpt.save_optim_on_train_end": "a finished run can only be continued with the optimizer's state",
    "log.ckpt.save_weights_only": "a run can only be resumed with the optimizer's state",
}

# Also written by the recipe's compilation, but as a default that `--set` may change
FREE = frozenset(
    {
        "trainer.plugins.grad_reduce_in_fp32",
        "model.config.gradient_accumulation_fusion",
        "data.seq_length_dec",
    }
)

# Fields of the architecture that a YAML file can change; others belong to the code of the model
SHAPE = frozenset(field.name for field in dataclasses.fields(Architecture)) - {*SETTABLE, *_CODE}
FIXED |= {
    f"model.config.{name}": "it belongs to the code of NeMo's model"
    for name in _CODE
    # "kind" and "post_layer_norms" are no fields, and these are fields of models that NeMo 2 does not have
    if name
    not in {
        *SETTABLE,
        "kind",
        "post_layer_norms",
        "attention_output_gate",
        "moe_shared_expert_gate",
        "moe_latent_size",
    }
}


def fixed(path: str) -> str | None:
    """Return why a path is always as nemolaunch sets it; None if it is not."""
    return FIXED.get(path)


def owner(path: str, job: Job) -> str | None:
    """Return the field of the job that decides a path; None if `--set` may change it, or nothing may."""
    if path in OWNED:
        return OWNED[path]
    for part, field in OWNED_PARTS.items():
        if path == part or path.startswith(f"{part}."):
            return field
    for field in OWNED_WHILE.get(path, ()):
        if job.get(field) not in (spec_of(field).default, None):
            return field
    source = replaced_by(path)
    if source is not None and owner(source, job) is not None:
        return owner(source, job)
    if path.startswith("model.config.") and path.removeprefix("model.config.") in SHAPE:
        return "model_name"
    return None
