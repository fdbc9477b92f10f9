"""Paths of Megatron-Bridge's configuration that `--set` may not change, because a flag or the plan decides them.

`bridge/config.py` and `bridge/provider.py` write every one of them; a test compares what they write with these tables.
"""

from __future__ import annotations

from nemolaunch.catalogue.bridge_fields import SET
from nemolaunch.catalogue.bridge_settings import replaced_by
from nemolaunch.catalogue.yamlform import FIXED as _CODE
from nemolaunch.check.setting_owners import SHAPE
from nemolaunch.job import Job, spec_of
from nemolaunch.resolve.settings import SETTABLE

_PRECISION = {
    **dict.fromkeys(
        ("bf16", "fp16", "fp32", "params_dtype", "pipeline_dtype", "autocast_enabled", "autocast_dtype"),
        "precision",
    ),
    **dict.fromkeys(("fp8", "fp4"), "fp8"),
    "fp8_recipe": "fp8_recipe",
    "fp4_recipe": "fp8_recipe",
}
_STAGES = (
    "num_layers_in_first_pipeline_stage", "num_layers_in_last_pipeline_stage",
    "account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split", "pipeline_model_parallel_layout",
)  # fmt: skip
_DATA = {
    "data_path": "dataset_dir",
    "blend_per_split": "dataset_dir",
    "sequence_length": "seq_length",
    "create_attention_mask": "reset_attention_mask",
    "multiple_validation_sets": "validation_data",
    "full_validation": "limit_val_batches",
    "trust_remote_code": "trust_remote_code",
}

# path -> the field of the job that decides it
OWNED: dict[str, str] = {
    **{
        path: field
        for field, paths in SET.items()
        for path in paths.split(", ")
        if "." in path and path != "optimizer.use_precision_aware_optimizer"
    },
    **{f"mixed_precision.{name}": field for name, field in _PRECISION.items()},
    **{f"model.{name}": "pipeline_model_parallel_size" for name in _STAGES},
    **{f"dataset.{name}": field for name, field in _DATA.items()},
    "optimizer.overlap_param_gather": "overlap_param_gather",
    "logger.tensorboard_dir": "output_dir",
    "model.batch_p2p_comm": "virtual_pipeline_model_parallel_size",
}
# what begins with these -> the field of the job that decides it
OWNED_PARTS: dict[str, str] = {
    "scheduler.": "lr_schedule",
    "tokenizer.": "hf_model_id",
    "validation.": "limit_val_batches",
    "rng.": "seed",
    "logger.wandb_": "wandb",
    "logger.mlflow_": "mlflow",
}
_PRECISION_AWARE = (
    "use_precision_aware_optimizer", "main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype",
)  # fmt: skip
# path -> the fields that decide it if they are not at their defaults; without them, it may be set
OWNED_WHILE: dict[str, tuple[str, ...]] = {
    "model.masked_softmax_fusion": ("attention_backend",),
    "model.use_te_rng_tracker": ("cuda_graphs",),
    "model.calculate_per_token_loss": ("objective", "eod_mask_loss"),
    "ddp.average_in_collective": ("objective", "eod_mask_loss"),
    **{
        f"optimizer.{name}": ("optim_cpu_offloading", "optimizer", "disable_dist_optim")
        for name in _PRECISION_AWARE
    },
}

# path -> why it is always as nemolaunch sets it
FIXED: dict[str, str] = {
    "model.transformer_layer_spec": "it belongs to the code of the model",
    "model.should_pad_vocab": "the size of the vocabulary belongs to the model",
    "model.hf_model_id": "models come from the catalogue, not from a hub",
    "model.calculate_per_token_loss": "the loss of a step is the mean over its micro batches",
    "model.barrier_with_L1_time": "the steps are timed by nemolaunch",
    "dataset.dataloader_type": "samples come in the order of the plan",
    "ddp.num_buckets": "ddp.bucket_size decides it",
    "ddp.use_megatron_fsdp": "weights are not sharded by FSDP yet",
    "ddp.use_custom_fsdp": "weights are not sharded by FSDP yet",
    "ddp.data_parallel_sharding_strategy": "weights are not sharded by FSDP yet",
    "optimizer.decoupled_lr": "the schedule sets one learning rate for all weights",
    "optimizer.decoupled_min_lr": "the schedule sets one learning rate for all weights",
    **{f"model.{name}": "it belongs to the code of the model" for name in _CODE if name not in SETTABLE},
}
FIXED_PARTS: dict[str, str] = {
    "checkpoint.": "runs are resumed from checkpoints of one form",
    "rerun_state_machine.": "nemolaunch's guards look at losses and gradients",
    "train.": "nemolaunch decides when a run ends and what a step trains on",
    "dist.": "the launcher and the layout decide how ranks communicate",
    "logger.comet_": "Comet is not supported",
}
# Below the parts above, but decided by nobody else; or written as a default that `--set` may change
FREE = frozenset(
    {
        "train.manual_gc", "train.manual_gc_interval", "train.manual_gc_eval", "train.empty_unused_memory_level",
        "train.train_sync_interval", "train.check_weight_hash_across_dp_replicas_interval",
        "dist.distributed_timeout_minutes", "dist.distributed_timeout_seconds_after_init",
        "dist.nccl_communicator_config_path", "dist.high_priority_stream_groups", "dist.use_sharp",
        "dist.sharp_enabled_group", "dist.use_tp_pp_dp_mapping", "ddp.average_in_collective",
        *(f"optimizer.{name}" for name in _PRECISION_AWARE),
    }
)  # fmt: skip


def owner(path: str, job: Job) -> str | None:
    """Return the field of the job that decides a path; None if `--set` may change it, or nothing may."""
    if path in OWNED:
        return OWNED[path]
    for part, field in OWNED_PARTS.items():
        if path.startswith(part):
            return field
    for field in OWNED_WHILE.get(path, ()):
        if job.get(field) not in (spec_of(field).default, None):
            return field
    source = replaced_by(path)
    if source in OWNED:
        return OWNED[source]
    name = path.removeprefix("model.")
    if path.startswith("model.") and name in SHAPE:
        return "model_name"
    return None


def fixed(path: str) -> str | None:
    """Return why a path is always as nemolaunch sets it; None if it is not."""
    if path in FIXED:
        return FIXED[path]
    if path in FREE:
        return None
    return next((why for part, why in FIXED_PARTS.items() if path.startswith(part)), None)
