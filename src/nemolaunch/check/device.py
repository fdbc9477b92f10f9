"""CPU rehearsals: models that need a GPU, and machines that have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemolaunch import catalogue
from nemolaunch.check.support import error, fix, note, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.system.quantities import counted


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that the model can be rehearsed on the CPU, that no GPU is visible, and that bf16 is not emulated."""
    if resolved.device != "cpu":
        return
    launch, model = resolved.job.launch, resolved.model
    gpus = len(resolved.facts.host.gpus)
    if gpus and launch.is_here:
        yield error(
            "cpu-despite-gpus",
            f"{shown('device', 'cpu')} would leave {counted(gpus, 'visible GPU')} idle",
            fix(device="auto"),
        )
    rehearsal = catalogue.cpu_rehearsal(model.recipe, model.architecture)
    if rehearsal.status == "unsupported":
        changes: dict[str, Any] = {} if launch.device == "auto" else {"device": "auto"}
        if launch.is_here and not gpus:
            changes["executor"] = "slurm"
        yield error(
            "cpu-unsupported",
            f"{model.name} cannot be rehearsed on a CPU: {rehearsal.reason}",
            fix(**changes),
        )
    if (
        launch.executor == "local"
        and resolved.facts.host.slow_bf16
        and resolved.job.batch.precision != "fp32"
    ):
        yield note(
            "slow-bf16",
            f"{shown('precision', resolved.job.batch.precision)} takes 10 to 100 times as long as fp32 on this CPU",
            fix(precision="fp32"),
        )
