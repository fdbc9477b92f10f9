"""What is reported, guarded and saved while a job runs.

Each field carries its command-line form; see `nemolaunch.job.fields.flag`. `None` means "not given".
"""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.job.fields import flag


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is logged, and when. TensorBoard files are always written."""

    wandb: bool = flag(False, "log to Weights & Biases; the key is read from WANDB_API_KEY")
    wandb_project: str | None = flag(None, "W&B project (default: --experiment)")
    wandb_name: str | None = flag(None, "W&B run name (default: --experiment)")
    log_every: int = flag(1, "steps between log lines")
    val_check_interval: int | None = flag(
        None, "steps between validations (default: a fifth of an epoch in long runs, else only at the end)"
    )
    limit_val_batches: int = flag(32, "batches per validation; 0 turns validation off")
    mlflow: bool = flag(False, "log to MLflow; the server is read from MLFLOW_TRACKING_URI")
    mlflow_experiment: str | None = flag(None, "MLflow experiment (default: --experiment)")
    sample_every: int | None = flag(
        None,
        "steps between samples: text that the checkpoint of the step generates, beside the run",
        metavar="STEPS",
    )
    sample_prompt: tuple[str, ...] = flag(
        (),
        "beginning of a text to continue for --sample-every; may be repeated",
        metavar="TEXT",
        repeats=True,
    )
    eval_every: int | None = flag(
        None,
        "steps between evaluations of the step's checkpoint with lm-eval, beside the run",
        metavar="STEPS",
    )
    eval_tasks: str | None = flag(None, "lm-eval task names or task files for --eval-every", metavar="A,B")
    eval_include_path: str | None = flag(
        None, "folder with custom task files for --eval-tasks", metavar="DIR"
    )
    notify: bool = flag(
        False,
        "send a message when the run ends, fails, is restarted, or a guard warns; the webhook's URL is read from "
        "NEMOLAUNCH_WEBHOOK_URL",
    )
    profile: str | None = flag(
        None, "profile some steps with the PyTorch profiler or Nsight Systems", choices=("pytorch", "nsys")
    )
    profile_steps: str = flag("10:12", "steps to profile: after START, up to STOP", metavar="START:STOP")
    profile_ranks: tuple[str, ...] = flag(("0",), "ranks to profile", metavar="N")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """What is monitored before and during the run. `nemolaunch status` and the report show the warnings."""

    on_not_finite: str = flag(
        "stop",
        "when the loss or a gradient is NaN or infinite: only warn, skip the update, or end the run",
        choices=("warn", "skip", "stop"),
    )
    on_loss_spike: str = flag(
        "warn",
        "when the loss spikes: only warn, skip the update, or end the run",
        choices=("warn", "skip", "stop"),
    )
    on_slowness: str = flag(
        "warn",
        "when a rank is slower than the others, steps slow down, or data loading falls behind: only warn, or end "
        "the run",
        choices=("warn", "stop"),
    )
    hang_timeout: int = flag(
        1800,
        "end the job if no step finishes for this long, after dumping the stacks of all ranks; 0 disables this",
        metavar="SECONDS",
    )
    preflight: bool = flag(
        False,
        "measure GPUs, links, file systems and versions of all nodes before the first step, and end the run if a node "
        "is slow or sick",
    )
    preflight_tolerance: float = flag(
        0.15, "how far below the median of all a rank or node may be in a preflight, as a fraction"
    )
    exclude_slow: bool = flag(
        False,
        "do not start on nodes that a preflight of this run found slow or sick, until one finds them fit",
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is saved, and where training starts from."""

    checkpoint_every: int | None = flag(
        None,
        "steps between checkpoints (default: every 15 minutes); the last step is always saved",
        metavar="STEPS",
    )
    keep_latest: int = flag(3, "number of most recent checkpoints to keep; -1 keeps all", aliases=("--keep",))
    upload: str | None = flag(
        None,
        "upload each checkpoint, plan, metrics and logs to URL/EXPERIMENT while training continues, such as "
        "s3://BUCKET/FOLDER",
        metavar="URL",
    )
    no_async_save: bool = flag(False, "pause training while a checkpoint is written")
    resume: str = flag(
        "auto",
        "where to start; auto: this run's last checkpoint if there is one; never: from scratch; or a checkpoint's PATH",
    )
    resume_schedule: str = flag(
        "flags",
        "which learning rate schedule and optimizer settings a resumed run uses; flags: those of this command, at the "
        "step reached; checkpoint: those it was trained with",
        choices=("flags", "checkpoint"),
    )
