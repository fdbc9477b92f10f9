"""What a machine without a GPU cannot train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemolaunch import catalogue
from nemolaunch.check.support import error, fix, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """A rehearsal on the CPU, of a model that needs a GPU or in place of one that is there."""
    if resolved.device != "cpu":
        return
    launch, model = resolved.job.launch, resolved.model
    gpus = len(resolved.facts.host.gpus)
    if gpus and launch.executor == "local":
        yield error(
            "cpu-despite-gpus",
            f"{shown('device', 'cpu')} on a machine with {gpus} visible GPU(s)",
            fix(device="auto"),
        )
    answer = catalogue.cpu_rehearsal(model.recipe, model.architecture)
    if answer.status == "unsupported":
        changes: dict[str, Any] = {} if launch.device == "auto" else {"device": "auto"}
        if launch.executor == "local" and not gpus:
            changes["executor"] = "slurm"
        yield error(
            "cpu-unsupported",
            f"{model.name} cannot be rehearsed on a CPU: {answer.reason}",
            fix(**changes),
        )
