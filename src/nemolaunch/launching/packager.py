"""Ship this package with a Slurm job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nemo_run as run

from nemolaunch.system import source_archive


@dataclass(kw_only=True)
class CodePackager(run.Packager):
    """A packager that puts the nemolaunch package into the task's code folder, where every rank starts.

    Python finds it there first, inside and outside of containers, without an environment variable that an image
    could override. The job keeps the code it was submitted with, however long it waits in the queue.
    """

    def package(self, path: Path, job_dir: str, name: str) -> str:
        """Write `job_dir/name.tar.gz` with the package's files. Return its path."""
        archive = Path(job_dir) / f"{name}.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.write_bytes(source_archive.archive())
        return str(archive)
