"""Names and paths that have to survive a shell, a file system and a comma-separated list."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

LONGEST_NAME = 128
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
# NeMo-Run writes paths into the batch script unquoted (nemo_run.core.execution.slurm, `noquote`)
_SHELL_SAFE = re.compile(r"[\w./:=@%+,~-]*")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """The experiment's name, and every path that is written into a script."""
    launch = resolved.job.launch
    name = launch.experiment
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name, flags=re.ASCII).strip("-.")[:LONGEST_NAME]
        yield error(
            "experiment-name",
            f"{shown('experiment', repr(name))} is not made of letters, digits, '.', '_' and '-', "
            f"up to {LONGEST_NAME} of them",
            *each("experiment", [clean or "pretraining"]),
            about="experiment",
        )
    if launch.executor == "local" and launch.num_nodes > 1:
        yield error(
            "local-nodes",
            f"{shown('num_nodes', launch.num_nodes)} with --executor local starts one node only",
            fix(num_nodes=1),
            fix(executor="slurm"),
        )
    yield from _paths(resolved)


def _paths(resolved: Resolved) -> Iterator[Finding]:
    slurm = resolved.job.launch.executor == "slurm"
    for name, path in _written_paths(resolved):
        if any(ord(c) < 32 or ord(c) == 127 for c in path):
            yield error("path-unprintable", f"{flag(name)} {path!r} has unprintable characters")
        elif slurm and not _SHELL_SAFE.fullmatch(path):
            odd = "".join(sorted(set(re.sub(r"[\w./:=@%+,~-]", "", path))))
            yield error(
                "path-in-shell", f"{flag(name)} {path!r} has {odd!r}, which a batch script cannot carry"
            )


def _written_paths(resolved: Resolved) -> Iterator[tuple[str, str]]:
    job = resolved.job
    yield "output_dir", resolved.facts.run.folder
    for _, prefix in resolved.blend:
        yield "dataset_dir", prefix
    if job.data.index_mapping_dir:
        yield "index_mapping_dir", job.data.index_mapping_dir
    if job.model.nemo_model:
        yield "nemo_model", job.model.nemo_model
    yield "resume", job.checkpoint.resume
    if job.launch.executor == "slurm":
        yield "container_image", job.launch.container_image
        for mount in job.launch.container_mounts:
            yield "container_mounts", mount
