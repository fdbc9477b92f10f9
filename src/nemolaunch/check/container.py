"""The image of a job in a container, and the folders mounted into it."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown, warning
from nemolaunch.findings import Finding
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check image and mounts."""
    launch, image = resolved.job.launch, resolved.facts.image
    if launch.executor == "local":
        return
    word = launch.container_image
    if launch.runtime in ("docker", "podman") and (word.strip() or launch.is_here):
        pass  # `container_engine` checks names of images
    elif not word.strip() and not launch.is_here:
        images = [spec_of("container_image").default]
        yield error("slurm-image", f"{flag('container_image')} is empty", *each("container_image", images))
    elif image is not None and image.error:
        yield error(
            "slurm-image",
            f"{shown('container_image', word)}: {image.error}",
            *each("container_image", [image.instead] if image.instead else []),
            about="container_image",
        )
    elif image is not None and not word.startswith(("/", "./", "../")):
        yield error(
            "slurm-image",
            f"{shown('container_image', word)} would be looked up in a registry because it has no folder in its path",
            *each("container_image", [image.path]),
            about="container_image",
        )
    yield from _mounts(resolved)


def _mounts(resolved: Resolved) -> Iterator[Finding]:
    mounts = resolved.job.launch.container_mounts
    for mount in mounts:
        parts = mount.split(":")
        if len(parts) == 1 and mount.startswith("/") and "," not in mount:
            both = tuple(f"{m}:{m}" if m == mount else m for m in mounts)
            yield error(
                "slurm-mount",
                f"{flag('container_mounts')} {mount} has a source but no target; the form is SRC:DST",
                fix(container_mounts=both),
            )
        elif not 2 <= len(parts) <= 3 or not all(parts) or "," in mount:
            yield error(
                "slurm-mount",
                f"{flag('container_mounts')} {mount!r} is not of the form SRC:DST or SRC:DST:FLAGS, without commas",
                fix(container_mounts=tuple(m for m in mounts if m != mount)),
            )
        elif resolved.job.launch.is_here and not mount.startswith("/"):
            yield error(
                "slurm-mount",
                f"{flag('container_mounts')} {mount}: the source must be an absolute path",
                fix(container_mounts=tuple(m for m in mounts if m != mount)),
            )
        elif not mount.isprintable():
            yield error(
                "path-unprintable", f"{flag('container_mounts')} {mount!r} contains unprintable characters"
            )
    for source in resolved.facts.mounts_missing:
        if resolved.job.launch.is_here:
            kept = tuple(m for m in mounts if m.partition(":")[0] != source)
            text = f"{flag('container_mounts')}: {source} does not exist"
            yield error("slurm-mount-missing", text, fix(container_mounts=kept))
            continue
        yield warning(
            "slurm-mount-missing",
            f"{flag('container_mounts')}: {source} does not exist on this machine; the container does not start on "
            "a node without it",
        )
