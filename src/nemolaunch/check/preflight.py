"""The preflight: flags without effect, and nodes that are left out."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import fix, no_effect, note, shown, warning, without
from nemolaunch.findings import Finding
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that the settings of a preflight take effect, and say which nodes `--exclude-slow` leaves out."""
    guards = resolved.job.guards
    if not guards.preflight and guards.preflight_tolerance != spec_of("preflight_tolerance").default:
        yield warning(
            "preflight-unused",
            f"{no_effect(['preflight_tolerance'])} without --preflight",
            fix(preflight=True),
            without(resolved, "preflight_tolerance"),
        )
    if guards.exclude_slow:
        yield from _excluded(resolved)


def _excluded(resolved: Resolved) -> Iterator[Finding]:
    launch, submission = resolved.job.launch, resolved.facts.submission
    unfit = submission.unfit if submission else ()
    if launch.executor != "slurm":
        yield warning(
            "preflight-unused",
            f"{no_effect(['exclude_slow'])} with {shown('executor', launch.executor)}: only Slurm chooses nodes",
            without(resolved, "exclude_slow"),
        )
    elif unfit:
        yield note(
            "preflight-excludes",
            f"--exclude-slow leaves out {', '.join(unfit)}, which the preflight of this run found slow or sick",
        )
    elif not resolved.job.guards.preflight:
        yield warning(
            "preflight-unused",
            f"{no_effect(['exclude_slow'])}: no preflight of this run has found a slow or sick node",
            fix(preflight=True),
            without(resolved, "exclude_slow"),
        )
    elif launch.array is not None or not launch.chain:
        name = "--array" if launch.array is not None else "--no-chain"
        yield warning(
            "preflight-unused",
            f"with {name}, no successor is queued: --exclude-slow only leaves out nodes at the next submission",
            fix(array=None) if launch.array is not None else fix(chain=True),
        )
