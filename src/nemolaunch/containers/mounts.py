"""What a plan's container mounts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nemolaunch.planning import Plan


def mounts_of(plan: Plan) -> list[str]:
    """Return SRC:DST of every folder the job reads or writes, under its own path, then the user's mounts."""
    job = plan.job
    folders = [os.path.dirname(prefix) for _, prefix in plan.blend]
    folders += [os.path.dirname(prefix) for each in plan.validation_sets for prefix in each.prefixes]
    host = plan.submission or plan.container
    if host is not None:
        folders += host.links
        folders += host.stream_folders
    folders.append(plan.folder)
    resume = None if job.checkpoint.resume in ("auto", "never") else job.checkpoint.resume
    named = (job.data.index_mapping_dir, job.model.nemo_model, resume)
    folders += [os.path.abspath(os.path.expanduser(path)) for path in named if path]
    if plan.container is not None and plan.container.cache:
        folders.append(plan.container.cache)
    return under_own_paths(folders) + list(job.launch.container_mounts)


def under_own_paths(folders: Sequence[str]) -> list[str]:
    """Return SRC:DST of absolute folders, without those inside others."""
    kept = [f for f in dict.fromkeys(folders) if not any(_inside(f, other) for other in folders)]
    return [f"{folder}:{folder}" for folder in kept]


def _inside(path: str, folder: str) -> bool:
    return path != folder and os.path.commonpath([path, folder]) == folder
