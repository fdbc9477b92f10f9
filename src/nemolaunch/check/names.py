"""Names and paths that end up in a shell script, a file system and a comma-separated list."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

LONGEST_NAME = 128
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
# NeMo-Run writes its folder inside the run folder into the batch script unquoted (`noquote` in its Slurm executor)
_UNSAFE = re.compile(r"[^\w./:=@%+,~-]")
# Lightning expands environment variables in the path of the TensorBoard folder (`TensorBoardLogger.log_dir`)
_VARIABLE = re.compile(r"\$(?:\w|\{)")
_IN_MOUNT = re.compile(r"[,:]")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the experiment's name and all paths that are written into a script."""
    launch = resolved.job.launch
    name = launch.experiment
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name, flags=re.ASCII).strip("-.")[:LONGEST_NAME]
        yield error(
            "experiment-name",
            f"{shown('experiment', repr(name))} is not a valid name: use letters, digits, '.', '_' and '-', at most "
            f"{LONGEST_NAME} characters",
            *each("experiment", [clean or "pretraining"]),
            about="experiment",
        )
    if launch.is_here and launch.num_nodes > 1:
        yield error(
            "local-nodes",
            f"{shown('num_nodes', launch.num_nodes)} is not possible with {shown('executor', launch.executor)}, which "
            "starts processes on this machine only",
            fix(num_nodes=1),
            fix(executor="slurm"),
        )
    yield from _paths(resolved)


def _paths(resolved: Resolved) -> Iterator[Finding]:
    for name, path in _paths_of(resolved):
        if not path.isprintable():
            yield error("path-unprintable", f"{flag(name)} {path!r} contains unprintable characters")
    folder = resolved.facts.run.folder
    if resolved.job.launch.engine:
        yield from _mounted(resolved)
    if resolved.job.launch.executor != "slurm":
        if _VARIABLE.search(folder):
            yield error(
                "path-with-variable",
                f"{flag('output_dir')} {folder!r} contains a '$', which Lightning expands as an environment variable",
                fix(output_dir=folder.replace("$", "-")),
            )
        return
    odd = "".join(sorted(set(_UNSAFE.findall(folder))))
    if odd and folder.isprintable() and _is_given(resolved):
        yield error(
            "path-in-shell",
            f"{flag('output_dir')} {folder!r} contains {odd!r}, which NeMo-Run does not quote in the batch script",
            fix(output_dir=_UNSAFE.sub("-", folder)),
        )
    if resolved.job.launch.runtime is not None:
        yield from _mounted(resolved)


def _is_given(resolved: Resolved) -> bool:
    """Return False if the run folder is named after an invalid experiment name, which is reported itself."""
    launch = resolved.job.launch
    return launch.output_dir is not None or _NAME.fullmatch(launch.experiment) is not None


def _mounted(resolved: Resolved) -> Iterator[Finding]:
    """Check the paths mounted into the container: the list is split at commas, source and target at a colon."""
    others = ("container_image",) if resolved.job.launch.is_here else ("output_dir", "container_image")
    for name, path in _paths_of(resolved):
        found = _IN_MOUNT.search(path)
        if found and name not in others:
            yield error(
                "path-in-mount",
                f"{flag(name)} {path!r} contains {found[0]!r}, which is a separator in the list of container mounts",
            )


def _paths_of(resolved: Resolved) -> Iterator[tuple[str, str]]:
    job = resolved.job
    yield "output_dir", resolved.facts.run.folder
    for _, prefix in resolved.blend:
        yield "dataset_dir", prefix
    for seen in resolved.facts.sources:
        for folder in seen.folders:
            yield "dataset_dir", folder
    for each_set in resolved.facts.validation:
        for file in each_set.files:
            yield "dataset_dir" if each_set.found else "validation_data", file.prefix
    if job.data.index_mapping_dir:
        yield "index_mapping_dir", job.data.index_mapping_dir
    if job.model.nemo_model:
        yield "nemo_model", job.model.nemo_model
    if job.checkpoint.resume not in ("auto", "never"):
        yield "resume", job.checkpoint.resume
    if job.launch.runtime is not None:
        yield "container_image", job.launch.container_image
