"""Names and paths that have to survive a shell, a file system and a comma-separated list."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

LONGEST_NAME = 128
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
# NeMo-Run writes its own folder, within the run's, into the batch script unquoted (`noquote` of its Slurm executor)
_UNSAFE = re.compile(r"[^\w./:=@%+,~-]")
# Lightning puts the values of variables into the folder of TensorBoard's files (`TensorBoardLogger.log_dir`)
_VARIABLE = re.compile(r"\$(?:\w|\{)")
_IN_MOUNT = re.compile(r"[,:]")
NO_CONTAINER = "none"


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
    for name, path in _paths_of(resolved):
        if not path.isprintable():
            yield error("path-unprintable", f"{flag(name)} {path!r} has unprintable characters")
    folder = resolved.facts.run.folder
    if resolved.job.launch.executor != "slurm":
        if _VARIABLE.search(folder):
            yield error(
                "path-with-variable",
                f"{flag('output_dir')} {folder!r} has a '$' for which Lightning puts in the value of a variable",
                fix(output_dir=folder.replace("$", "-")),
            )
        return
    odd = "".join(sorted(set(_UNSAFE.findall(folder))))
    if odd and folder.isprintable() and _is_given(resolved):
        yield error(
            "path-in-shell",
            f"{flag('output_dir')} {folder!r} has {odd!r}, which NeMo-Run's batch script does not put in quotes",
            fix(output_dir=_UNSAFE.sub("-", folder)),
        )
    if resolved.job.launch.container_image != NO_CONTAINER:
        yield from _mounted(resolved)


def _is_given(resolved: Resolved) -> bool:
    """Whether the run folder's name is not just that of an experiment which is reported itself."""
    launch = resolved.job.launch
    return launch.output_dir is not None or _NAME.fullmatch(launch.experiment) is not None


def _mounted(resolved: Resolved) -> Iterator[Finding]:
    """Folders that the container sees: the list of them is split at commas, source and target at a colon."""
    for name, path in _paths_of(resolved):
        found = _IN_MOUNT.search(path)
        if found and name not in ("output_dir", "container_image"):
            yield error(
                "path-in-mount",
                f"{flag(name)} {path!r} has {found[0]!r}, which a list of mounts cannot carry",
            )


def _paths_of(resolved: Resolved) -> Iterator[tuple[str, str]]:
    job = resolved.job
    yield "output_dir", resolved.facts.run.folder
    for _, prefix in resolved.blend:
        yield "dataset_dir", prefix
    for seen in resolved.facts.sources:
        for folder in seen.folders:
            yield "dataset_dir", folder
    if job.data.index_mapping_dir:
        yield "index_mapping_dir", job.data.index_mapping_dir
    if job.model.nemo_model:
        yield "nemo_model", job.model.nemo_model
    if job.checkpoint.resume not in ("auto", "never"):
        yield "resume", job.checkpoint.resume
    if job.launch.executor == "slurm":
        yield "container_image", job.launch.container_image
