"""Move a run to the other framework."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemolaunch.api.run import Run
from nemolaunch.errors import UsageError
from nemolaunch.job import Job
from nemolaunch.job.job import field_name
from nemolaunch.launching import migration
from nemolaunch.observe.status import run_of
from nemolaunch.planning import Plan

log = logging.getLogger("nemolaunch")
TARGETS = ("bridge", "nemo2")


def migrate(
    run: str | Path,
    *,
    to: str,
    output: str | Path | None = None,
    tell: Callable[[str], None] = log.info,
    progress: migration.Progress = migration.no_progress,
    **changes: Any,
) -> Run:
    """Make a new run that continues another one under the other framework, with its optimizer and place in the data.

    Nothing is started: `nemolaunch resume` continues the new run. The old one is left as it is.

    Args:
        run: a run folder; it must not be running.
        to: `bridge` or `nemo2`.
        output: the new run folder; by default `RUN-bridge` or `RUN-nemo2`.
        tell: called with messages; they are logged at level INFO by default.
        progress: creates a progress display, given a label and the number of bytes to process.
        changes: fields of `Job` that the new run changes, such as `container_image`.

    Raises:
        UsageError: there is nothing to move, or the new folder exists.
        PlanError: the other framework cannot train the job.
        NemolaunchError: something of the training is refused, by name, or the result differs from the source.
    """
    if to not in TARGETS:
        raise UsageError(f"to must be one of {', '.join(TARGETS)}, not {to!r}")
    source = run_of(Path(run))
    folder = migration.folder_for(source, to, None if output is None else Path(output))
    given = {field_name(name): value for name, value in changes.items()}
    job = Job().with_values(**migration.moved_values(Plan.of_run(source), to, folder, given))
    migration.migrate(migration.plan_migration(source, to, folder, job), tell, progress)
    return Run(folder, tell=tell)
