"""Where this attempt of a run starts."""

from __future__ import annotations

from pathlib import Path

from nemolaunch.planning import Plan


def start_checkpoint(plan: Plan) -> Path | None:
    """Return the checkpoint that this attempt continues: the run's own, else the one that `--resume` names, if any.

    With `--resume never` the launch has moved earlier checkpoints aside, so any checkpoint is from this run.
    """
    resume = plan.job.checkpoint.resume
    return plan.run.last_checkpoint() or (None if resume in ("auto", "never") else Path(resume))
