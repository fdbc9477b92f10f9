"""The engine that runs the container of a job: installed, with the image, with GPUs, with room on its disk."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import error, fix, no_effect, shown, warning, without
from nemolaunch.facts.container_engine import Engine
from nemolaunch.findings import Finding
from nemolaunch.job import spec_of
from nemolaunch.job.images import file_of, is_file, pull_command
from nemolaunch.resolve import Resolved

# Below this, the disk is worth a look. An assumption: the size of an image is only known once it has been fetched, and
# those with CUDA, PyTorch and NeMo are among the largest there are
LITTLE_BYTES = 60e9
_DEFAULT_IMAGE = spec_of("container_image").default
_TOOLKIT = "install NVIDIA's container toolkit"
_GPU_SETUP = {
    "docker": f"{_TOOLKIT} and run `sudo nvidia-ctk runtime configure --runtime=docker && "
    "sudo systemctl restart docker`",
    "podman": f"{_TOOLKIT} and run `sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
}


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the engine of a container on this machine, or what runs containers on Slurm."""
    launch, engine = resolved.job.launch, resolved.facts.engine
    yield from _flags(resolved)
    if launch.runtime in ("docker", "podman") and _is_file(resolved):
        yield error(
            "container-image",
            f"{shown('container_image', launch.container_image)} is a file, but {launch.runtime} runs images by name",
        )
    elif launch.engine is None:
        return
    elif launch.container_image.strip() in ("", "none"):
        yield error(
            "container-image",
            f"{shown('executor', launch.engine)} needs an image; {shown('executor', 'local')} runs in this environment",
            without(resolved, "container_image"),
            fix(executor="local"),
        )
    elif engine is not None:
        yield from _works(resolved, engine)


def _is_file(resolved: Resolved) -> bool:
    return is_file(resolved.job.launch.container_image)


def _flags(resolved: Resolved) -> Iterator[Finding]:
    """Check what runs containers on Slurm."""
    launch = resolved.job.launch
    runtime = shown("container_runtime", launch.container_runtime)
    if launch.container_runtime != "pyxis" and launch.executor != "slurm":
        yield warning(
            "container-runtime",
            f"{no_effect(['container_runtime'])} with {shown('executor', launch.executor)}",
            without(resolved, "container_runtime"),
        )
    elif launch.container_runtime in ("apptainer", "podman") and launch.container_image == "none":
        yield warning(
            "container-runtime",
            f"{no_effect(['container_runtime'])} with {shown('container_image', 'none')}",
            without(resolved, "container_runtime"),
            without(resolved, "container_image"),
        )
    elif launch.container_runtime == "none" and launch.container_image not in ("none", _DEFAULT_IMAGE):
        yield warning(
            "container-runtime",
            f"{no_effect(['container_image'])} with {runtime}",
            without(resolved, "container_image"),
            without(resolved, "container_runtime"),
        )
    elif launch.container_runtime == "podman" and launch.launcher == "torchrun":
        yield error(
            "container-runtime",
            f"{runtime} passes signals to one process of a container only, so with {shown('launcher', 'torchrun')} "
            "ranks could not save before they end",
            fix(launcher="srun"),
        )


def _works(resolved: Resolved, engine: Engine) -> Iterator[Finding]:
    where = shown("executor", engine.name)
    if not engine.installed:
        yield error(
            "container-engine",
            f"{where}: {engine.name} is not installed on this machine",
            fix(executor="local"),
        )
        return
    if engine.error:
        yield error("container-engine", f"{where}: {engine.error}")
        return
    if engine.has_image is False:
        yield from _without_image(resolved, engine)
    if resolved.device == "gpu" and not engine.gives_gpus:
        yield error(
            "container-gpus",
            f"{where} cannot give a container this machine's GPUs: {_GPU_SETUP[engine.name]}",
        )


def _without_image(resolved: Resolved, engine: Engine) -> Iterator[Finding]:
    image = resolved.job.launch.container_image
    is_missing_file = engine.name == "apptainer" and _is_file(resolved)
    if not is_missing_file:  # a missing file is reported with the other paths
        fixes = [fix(container_image=file_of(image))] if engine.name == "apptainer" else []
        yield error(
            "container-image",
            f"{shown('container_image', image)} is not on this machine; fetch it with "
            f"`{pull_command(engine.name, image)}`",
            *fixes,
        )
    if engine.free_bytes is not None and engine.free_bytes < LITTLE_BYTES:
        yield warning(
            "container-disk",
            f"{engine.storage}, where {engine.name} keeps images, has {engine.free_bytes / 1e9:,.0f} GB free, "
            f"which may be too little to fetch and unpack an image: less than {LITTLE_BYTES / 1e9:.0f} GB",
        )
