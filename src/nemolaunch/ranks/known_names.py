"""What a checkpoint names is checked again on the node that loads it."""

from __future__ import annotations

from pathlib import Path

from nemolaunch.planning import Plan
from nemolaunch.ranks.start import start_checkpoint
from nemolaunch.trust.checkpoint import check_checkpoint


def require_known_names(plan: Plan) -> None:
    """Refuse to load a checkpoint that names what its framework's own do not, also if it came here in the queue.

    Raises:
        NemolaunchError: the names.
    """
    if plan.job.model.trust_remote_code:
        return
    for folder in (start_checkpoint(plan), plan.job.model.nemo_model):
        if folder and Path(folder).is_dir():
            check_checkpoint(Path(folder))
