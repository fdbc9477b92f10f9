"""Keys and tokens: those that are missing, and those that should not be on the command line."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, note
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check W&B's key, MLflow's server and Hugging Face's token."""
    facts, logging = resolved.facts, resolved.job.logging
    if logging.wandb and "WANDB_API_KEY" not in facts.secrets and not facts.wandb_offline:
        yield error(
            "wandb-key",
            f"{flag('wandb')} needs WANDB_API_KEY or WANDB_MODE=offline in the environment, and neither is set",
            fix(wandb=False),
        )
    given = any(word.startswith("MLFLOW_TRACKING_URI=") for word in resolved.job.launch.env)
    if logging.mlflow and not given and "MLFLOW_TRACKING_URI" not in facts.secrets:
        yield error(
            "mlflow-uri",
            f"{flag('mlflow')} needs the address of a server in MLFLOW_TRACKING_URI, which is not set",
            fix(mlflow=False),
        )
    if resolved.job.model.hf_token:
        yield note(
            "token-on-command-line",
            f"{flag('hf_token')} is visible in the process list; export HF_TOKEN instead",
        )
