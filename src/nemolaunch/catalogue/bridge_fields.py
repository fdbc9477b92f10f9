"""What becomes of each field of a job when Megatron-Bridge trains it.

Every field is in exactly one of two tables: those that set a field of Bridge's configuration, and those that nemolaunch
itself acts on, whichever framework trains.
"""

from __future__ import annotations

# Field of a job -> the field of Bridge's `ConfigContainer` that it sets
SET: dict[str, str] = {
    "seq_length": "model.seq_length, dataset.seq_length",
    "split": "dataset.split",
    "num_workers": "dataset.num_workers",
    "index_mapping_dir": "dataset.path_to_cache",
    "dataset_dir": "dataset.blend",
    "blend_by": "dataset.blend",
    "reset_attention_mask": "dataset.reset_attention_mask",
    "reset_position_ids": "dataset.reset_position_ids",
    "eod_mask_loss": "dataset.eod_mask_loss",
    "hf_model_id": "tokenizer.tokenizer_model",
    "trust_remote_code": "tokenizer.hf_tokenizer_kwargs",
    "model_name": "model",
    "set": "PATH",
    "moe_z_loss_coeff": "model.moe_z_loss_coeff",
    "max_steps": "train.train_iters",
    "global_batch_size": "train.global_batch_size",
    "micro_batch_size": "train.micro_batch_size",
    "precision": "mixed_precision",
    "fp8": "mixed_precision",
    "fp8_recipe": "mixed_precision",
    "seed": "rng.seed, dataset.random_seed",
    "tensor_model_parallel_size": "model.tensor_model_parallel_size",
    "pipeline_model_parallel_size": "model.pipeline_model_parallel_size, model.pipeline_dtype",
    "virtual_pipeline_model_parallel_size": "model.virtual_pipeline_model_parallel_size, model.overlap_p2p_comm",
    "context_parallel_size": "model.context_parallel_size",
    "sequence_parallel": "model.sequence_parallel",
    "expert_model_parallel_size": "model.expert_model_parallel_size",
    "expert_tensor_parallel_size": "model.expert_tensor_parallel_size",
    "recompute_granularity": "model.recompute_granularity",
    "recompute_method": "model.recompute_method",
    "recompute_num_layers": "model.recompute_num_layers",
    "recompute_modules": "model.recompute_modules",
    "cpu_offloading": "model.cpu_offloading",
    "cpu_offloading_layers": "model.cpu_offloading_num_layers",
    "cpu_offloading_activations": "model.cpu_offloading_activations",
    "cpu_offloading_weights": "model.cpu_offloading_weights",
    "optim_cpu_offloading": "optimizer.optimizer_cpu_offload, optimizer.use_precision_aware_optimizer",
    "optim_cpu_offloading_frac": "optimizer.optimizer_offload_fraction",
    "attention_backend": "model.attention_backend",
    "cuda_graphs": "model.cuda_graph_impl, rng.te_rng_tracker",
    "tp_comm_overlap": "model.tp_comm_overlap",
    "overlap_grad_reduce": "ddp.overlap_grad_reduce",
    "overlap_param_gather": "ddp.overlap_param_gather",
    "optimizer": "optimizer.optimizer",
    "lr": "optimizer.lr",
    "min_lr": "optimizer.min_lr",
    "adam_beta1": "optimizer.adam_beta1",
    "adam_beta2": "optimizer.adam_beta2",
    "adam_eps": "optimizer.adam_eps",
    "weight_decay": "optimizer.weight_decay, scheduler.start_weight_decay, scheduler.end_weight_decay",
    "clip_grad": "optimizer.clip_grad",
    "disable_dist_optim": "optimizer.use_distributed_optimizer, ddp.use_distributed_optimizer",
    "num_distributed_optimizer_instances": "ddp.num_distributed_optimizer_instances",
    "log_every": "logger.log_interval",
    "val_check_interval": "validation.eval_interval",
    "limit_val_batches": "validation.eval_iters",
    "on_not_finite": "ddp.check_for_nan_in_grad",
    "checkpoint_every": "checkpoint.save_interval",
    "keep_latest": "checkpoint.most_recent_k",
    "no_async_save": "checkpoint.async_save",
    "nemo_model": "checkpoint.pretrained_checkpoint",
    "resume": "checkpoint.load",
    "profile": "profiling.use_nsys_profiler",
    "profile_steps": "profiling.profile_step_start, profiling.profile_step_end",
    "profile_ranks": "profiling.profile_ranks",
}

# Nemolaunch acts on these itself, whichever framework trains, or turns them into one of the above while planning
OURS: frozenset[str] = frozenset(
    {
        "backend", "python", "experiment", "output_dir", "num_nodes", "num_gpus", "device", "env_preset", "env",
        "executor", "account", "partition", "container_image", "container_runtime", "container_mounts", "time",
        "launcher", "detach", "chain", "max_failures", "exit_margin", "qos", "gres", "constraint", "exclude",
        "exclude_slow", "reservation", "comment", "dependency", "array", "sbatch", "modules", "setup", "pre_commands",
        "preset", "gpu", "network_interface", "hf_token", "validation_data", "data_mode", "objective",
        "mlm_probability", "mlm_replacement", "mlm_span_length", "mask_token",
        # streams
        "text_key", "stopping_strategy", "shuffle_buffer", "shard_shuffle", "stream_readers", "data_resume",
        "bad_data", "data_ledger",
        "max_tokens", "tokens_per_param", "global_batch_tokens", "rampup_batch_size",
        # the rate of every step is the plan's
        "lr_schedule", "warmup_steps", "warmup_ratio", "decay_steps", "constant_steps", "wsd_decay_steps",
        "wsd_decay_style", "resume_schedule",
        "wandb", "wandb_project", "wandb_name", "mlflow", "mlflow_experiment",
        "sample_every", "sample_prompt", "eval_every", "eval_tasks", "eval_include_path", "notify", "keep_warm",
        "on_loss_spike", "on_slowness", "hang_timeout", "preflight", "preflight_tolerance",
        "upload",
    }
)  # fmt: skip
