"""Where checkpoints are uploaded to."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, note, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that the object store can be used, from here or at least by the job."""
    target, job = resolved.facts.upload, resolved.job
    if target is None:
        return
    if target.library is not None:
        yield error("upload-library", f"{flag('upload')}: {target.library}", fix(upload=None))
    elif target.error is not None and job.launch.executor == "slurm":
        yield note(
            "upload-unreachable",
            f"{shown('upload', target.url)} cannot be written from this machine ({target.error}); compute nodes must "
            "be able to",
        )
    elif target.error is not None:
        yield error(
            "upload-unreachable",
            f"{shown('upload', target.url)} cannot be written from this machine: {target.error}",
            fix(upload=None),
        )
    if any("=" in word for word in job.launch.env):
        yield error(
            "upload-of-values",
            f"{flag('upload')} would store the values of {flag('env')} in the bucket with the plan: give names alone, "
            "whose values are read from the environment",
            fix(upload=None),
        )
