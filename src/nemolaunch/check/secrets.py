"""Keys that have to be there, and ones that should be elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, note
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """W&B's key, MLflow's server, Hugging Face's token."""
    facts, logging = resolved.facts, resolved.job.logging
    if logging.wandb and "WANDB_API_KEY" not in facts.secrets and not facts.wandb_offline:
        yield error(
            "wandb-key",
            f"{flag('wandb')}: WANDB_API_KEY is not set; export it, or WANDB_MODE=offline",
            fix(wandb=False),
        )
    given = any(word.startswith("MLFLOW_TRACKING_URI=") for word in resolved.job.launch.env)
    if logging.mlflow and not given and "MLFLOW_TRACKING_URI" not in facts.secrets:
        yield error(
            "mlflow-uri",
            f"{flag('mlflow')}: MLFLOW_TRACKING_URI is not set; export the address of the server",
            fix(mlflow=False),
        )
    if resolved.job.model.hf_token:
        yield note(
            "token-on-command-line",
            f"{flag('hf_token')} shows in the list of processes; export HF_TOKEN instead",
        )
