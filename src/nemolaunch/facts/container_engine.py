"""The container engine of this machine: whether it answers, has the image, and can give a container GPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.system.commands import answers

_TIMEOUT_S = 20
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi", "/run/cdi")
_PODMAN_INIT = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit")
# asks the engine whether it works, and where it keeps images
_INFO = {
    "docker": ["docker", "info", "--format", "{{json .}}"],
    "podman": ["podman", "info", "--format", "json"],
}


@dataclass(frozen=True, kw_only=True)
class ContainerHost:
    """What the command line of a container needs to know about this machine and user.

    Attributes:
        image: as the engine takes it: a name, or an absolute path.
        user: UID:GID.
        init: whether the engine has an init process for the container.
        raises_limits: whether it may raise limits above those of the user.
        cache: the user's cache of the Hugging Face hub, if there is one.
        links: folders outside the job's own to which its data files are links.
        stream_folders: folders from which rows of a stream are read.
    """

    engine: str
    image: str
    user: str
    init: bool = True
    raises_limits: bool = True
    cache: str | None = None
    links: tuple[str, ...] = ()
    stream_folders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A container engine.

    Attributes:
        installed: whether its command is on the PATH.
        error: why it does not work, or None.
        has_image: whether the image is on this machine; None if not known.
        gives_gpus: whether NVIDIA's runtime or CDI is set up for it.
        storage: folder of its images; None if not known.
        free_bytes: free space there; None if not known.
    """

    name: str
    installed: bool = True
    error: str | None = None
    has_image: bool | None = None
    gives_gpus: bool = True
    storage: str | None = None
    free_bytes: int | None = None


def look_at_engine(name: str, image: str) -> Engine:
    """Return what is known about an engine and an image."""
    if shutil.which(name) is None:
        return Engine(name=name, installed=False)
    if name == "apptainer":
        return Engine(name=name, has_image=os.path.exists(os.path.expanduser(image)), storage=os.getcwd(),
                      free_bytes=_free(os.getcwd()))  # fmt: skip
    info, error = _ask(_INFO[name])
    if error:
        return Engine(name=name, error=error)
    (found,) = answers([name, "image", "inspect", "--format", "{{.Id}}", image], timeout_s=_TIMEOUT_S)
    store = info.get("store") or {}
    storage = info.get("DockerRootDir") or store.get("graphRoot")
    return Engine(
        name=name,
        has_image=found is not None,
        gives_gpus=_has_cdi() if name == "podman" else _has_nvidia_runtime(info),
        storage=storage,
        free_bytes=_free(storage) if storage else None,
    )


def container_host(
    engine: str, image: str, links: tuple[str, ...], stream_folders: tuple[str, ...]
) -> ContainerHost:
    """Return what the command line of a container needs to know. Reads the disk."""
    is_file = engine == "apptainer" and os.path.exists(os.path.expanduser(image))
    cache = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    return ContainerHost(
        engine=engine,
        image=os.path.abspath(os.path.expanduser(image)) if is_file else image,
        user=f"{os.getuid()}:{os.getgid()}",
        init=engine != "podman" or any(map(os.path.exists, _PODMAN_INIT)),
        raises_limits=engine != "podman" or _may_raise_limits(),
        cache=os.path.abspath(cache) if os.path.isdir(cache) else None,
        links=links,
        stream_folders=stream_folders,
    )


def _ask(command: list[str]) -> tuple[dict[str, Any], str | None]:
    """Return the JSON object that a command prints, or the last line of its error."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return {}, f"`{' '.join(command[:2])}` does not answer"
    try:
        info = json.loads(done.stdout)
    except ValueError:
        info = {}
    problems = info.get("ServerErrors") or done.stderr.strip().splitlines()
    if done.returncode or info.get("ServerErrors"):
        return {}, (problems or [f"`{' '.join(command[:2])}` failed"])[-1]
    return info, None


def _has_nvidia_runtime(info: dict[str, Any]) -> bool:
    """Return whether docker can run containers with GPUs: the hook of NVIDIA's container toolkit is enough."""
    return (
        "nvidia" in (info.get("Runtimes") or {}) or shutil.which("nvidia-container-runtime-hook") is not None
    )


def _has_cdi() -> bool:
    """Return whether a specification of the Container Device Interface names NVIDIA's GPUs."""
    for folder in _CDI_FOLDERS:
        for path in (*Path(folder).glob("*.yaml"), *Path(folder).glob("*.json")):
            try:
                if "nvidia.com/gpu" in path.read_text(encoding="utf-8", errors="replace"):
                    return True
            except OSError:
                continue
    return False


def _may_raise_limits() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    lines = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    return bool(lines) and bool(int(lines[0], 16) >> _CAP_SYS_RESOURCE & 1)


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
