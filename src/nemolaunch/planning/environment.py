"""Whether the environment of this command can train, for a job that would train in it."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, warning
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.backend import trains_with_bridge
from nemolaunch.system.installation import how_to_install


def findings(resolved: Resolved, *, starts: bool) -> Iterator[Finding]:
    """Yield a finding if packages are missing: an error for a job that is about to start.

    Megatron-Bridge's environment is checked by `check.backend`; a plan may be meant for another machine.
    """
    job, missing = resolved.job, resolved.facts.host.missing
    if not missing or not job.launch.is_here or job.launch.runtime is not None or trains_with_bridge(job):
        return
    say = error if starts else warning
    yield say(
        "training-packages",
        f"this environment cannot train: it has no {', '.join(missing)}; install them with {how_to_install('train')}, "
        "or train in NeMo's container with --executor docker, podman, apptainer or slurm",
    )
