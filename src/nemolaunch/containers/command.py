"""The command line of a container engine, a pure function of what runs in it.

Values of variables are never part of it: process lists and `inspect` show command lines to others. They reach the
engine in its own environment (`passed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nemolaunch.job.images import image_word

# NVIDIA's containers warn without them: pinned memory for NCCL, and stacks of many data loading threads
# (docs.nvidia.com/deeplearning/frameworks/user-guide, "Setting The Shared Memory And Locked Memory")
LIMITS = ("--ulimit", "memlock=-1", "--ulimit", "stack=67108864")
HOME = "/tmp"  # the user has no home in the image, and libraries write their caches there


@dataclass(frozen=True, kw_only=True)
class Container:
    """What one container is started with.

    Attributes:
        engine: docker, podman or apptainer.
        mounts: SRC:DST or SRC:DST:FLAGS.
        workdir: in the container.
        variables: names whose values the engine takes from its own environment; podman expands a trailing `*`.
        gpus: whether it gets the machine's GPUs.
        user: UID:GID that its processes run as, so that files belong to the user.
        name: of the container; None lets the engine choose.
        init: whether the engine has an init process that reaps children.
        raises_limits: whether the engine may raise limits above those of the user.
        alone: whether its processes get only the variables named, and standard input.
    """

    engine: str
    image: str
    mounts: tuple[str, ...]
    workdir: str
    variables: tuple[str, ...] = ()
    gpus: bool
    user: str
    name: str | None = None
    init: bool = True
    raises_limits: bool = True
    alone: bool = True


def command(box: Container, words: Sequence[str] = ()) -> list[str]:
    """Return the words that run a command in a container, in the foreground, with its exit code."""
    made = _apptainer(box) if box.engine == "apptainer" else _docker(box)
    return [*made, image_word(box.engine, box.image), *words]


def _docker(box: Container) -> list[str]:
    """Return docker's words, which podman understands too, except for GPUs and users."""
    podman = box.engine == "podman"
    made = [box.engine, "run", "--rm"]
    made += ["--interactive", "--pull", "never"] if box.alone else []
    made += ["--name", box.name] if box.name else []
    made += ["--init"] if box.init else []
    made += ["--network", "host", "--ipc", "host"]
    made += LIMITS if box.raises_limits else ["--ulimit", "host"]
    if box.gpus:
        made += ["--device", "nvidia.com/gpu=all"] if podman else ["--gpus", "all"]
    if podman:
        made += ["--security-opt", "label=disable"]  # else SELinux denies the mounted folders
        made += [] if box.user.startswith("0:") else ["--userns", "keep-id"]
    made += ["--user", box.user, "--workdir", box.workdir]
    for mount in box.mounts:
        made += ["--volume", mount]
    for name in (f"HOME={HOME}", "PYTHONNOUSERSITE=1", *box.variables):
        made += ["--env", name]
    return made


def _apptainer(box: Container) -> list[str]:
    """Return apptainer's words. It runs as the user, with the user's limits, in the host's network and IPC."""
    made = ["apptainer", "exec"]
    made += ["--nv"] if box.gpus else []
    made += ["--cleanenv"] if box.alone else []
    made += ["--env", "PYTHONNOUSERSITE=1", "--pwd", box.workdir]
    for mount in box.mounts:
        made += ["--bind", mount]
    return made


def passed(engine: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's own variables that give a container these values."""
    prefix = "APPTAINERENV_" if engine == "apptainer" else ""
    return {f"{prefix}{name}": value for name, value in values.items()}
