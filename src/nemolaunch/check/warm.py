"""Runs whose ranks are forked from a process that has imported the framework."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that ranks can be forked: on this machine, without a GPU, and not below another program."""
    launch = resolved.job.launch
    if launch.keep_warm is None:
        return
    if launch.executor != "local":
        reason = f"with {shown('executor', launch.executor)} they are started anew"
    elif resolved.device == "gpu":
        reason = "on a GPU that has not been shown to work"
    elif resolved.job.logging.profile == "nsys":
        reason = f"with {shown('profile', 'nsys')} they are started below Nsight Systems"
    else:
        return
    yield error(
        "keep-warm-elsewhere",
        f"{flag('keep_warm')} forks the ranks of a rehearsal on this machine's CPU; {reason}",
        fix(keep_warm=None),
    )
