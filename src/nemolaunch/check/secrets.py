"""Keys and tokens: those that are missing, and those that should not be on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, note
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.system import webhook
from nemolaunch.system.secret_values import masked, name_is_secret

_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=[\"']?([^\s,;\"']*)")


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
    given = given or "MLFLOW_TRACKING_URI" in facts.passed
    if logging.mlflow and not given and "MLFLOW_TRACKING_URI" not in facts.secrets:
        yield error(
            "mlflow-uri",
            f"{flag('mlflow')} needs the address of a server in MLFLOW_TRACKING_URI, which is not set",
            fix(mlflow=False),
        )
    if logging.notify and webhook.VARIABLE not in facts.secrets:
        yield error(
            "notify-url",
            f"{flag('notify')} needs the URL of a webhook in {webhook.VARIABLE}, which is not set or no URL",
            fix(notify=False),
        )
    yield from _in_flags(resolved)
    if resolved.job.model.hf_token:
        yield note(
            "token-on-command-line",
            f"{flag('hf_token')} is visible in the process list; export HF_TOKEN instead",
        )


def _in_flags(resolved: Resolved) -> Iterator[Finding]:
    """Refuse tokens, and URLs with a password, in any flag: the plan and the batch script hold their values."""
    for name, value in resolved.job.values().items():
        words = value if isinstance(value, (list, tuple)) else (value,)
        for word in words:
            if name != "env" and isinstance(word, str) and _holds_secret(word, name):
                yield error(
                    "secret-in-file",
                    f"{flag(name)} {masked(word)!r} holds a password or token, and the plan and the batch script are "
                    "files that others may read. Export it as a variable and pass that on with --env NAME",
                    about=name,
                )


def _holds_secret(word: str, name: str) -> bool:
    if masked(word, frozenset()) != word:
        return True
    # export HF_TOKEN=…, and the option export=ALL,HF_TOKEN=… of sbatch
    given = _ASSIGNED.findall(word) if name in ("pre_commands", "sbatch") else []
    return any(value and not value.startswith("$") and name_is_secret(key, value) for key, value in given)
