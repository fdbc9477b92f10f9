"""The profiler: steps, ranks, and whether it can trace the device."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, shown
from nemolaunch.findings import Finding
from nemolaunch.job.profiling import steps_of
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that steps and ranks belong to the job, and that the profiler can trace the device."""
    logging, last = resolved.job.logging, resolved.job.batch.max_steps
    if logging.profile is None:
        return
    try:
        start, stop = steps_of(logging.profile_steps)
    except ValueError as problem:
        yield error("profile-steps", f"--profile-steps {problem}", fix(profile_steps="10:12"))
    else:
        if last is not None and stop > last:
            first = max(0, last - (stop - start))
            yield error(
                "profile-steps",
                f"{shown('profile_steps', logging.profile_steps)} goes beyond the last step, {last}",
                *([fix(profile_steps=f"{first}:{last}")] if last > 0 else []),
            )
    odd = [
        r for r in logging.profile_ranks if not (r.isascii() and r.isdigit() and int(r) < resolved.world_size)
    ]
    if odd or not logging.profile_ranks:
        yield error(
            "profile-ranks",
            f"{shown('profile_ranks', ' '.join(odd) or 'none')} is not among the job's ranks, 0 to "
            f"{resolved.world_size - 1}",
            fix(profile_ranks=("0",)),
        )
    if logging.profile == "nsys" and resolved.device == "cpu":
        yield error(
            "profile-nsys-on-cpu",
            "--profile nsys needs a GPU to trace, but this job runs on the CPU",
            fix(profile="pytorch"),
        )
