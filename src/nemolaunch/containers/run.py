"""The container of a run on this machine: its name, its command line, and the variables of its ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from nemolaunch.containers.command import Container, command
from nemolaunch.containers.mounts import mounts_of
from nemolaunch.facts.container_engine import ContainerHost
from nemolaunch.planning import Plan
from nemolaunch.system import processes, webhook

RANKS = "nemolaunch.launching.container_ranks"  # the module that runs in the container
# Variables of the user's shell that ranks need: keys, proxies, and settings of the libraries that train
_PREFIXES = (
    "HF_",
    "HUGGING_FACE_",
    "WANDB_",
    "MLFLOW_",
    "AWS_",
    "NCCL_",
    "GLOO_",
    "NVTE_",
    "TORCH_",
    "PYTORCH_",
)
_NAMES = {
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER", webhook.VARIABLE, "CUDA_LAUNCH_BLOCKING",
}  # fmt: skip
_PATHS = ("_HOME", "_CACHE", "_DIR", "_PATH", "_FILE")  # of this machine, and not mounted


def code_folder(plan: Plan) -> Path:
    """Return the folder that holds the code of a run, which its container works in."""
    return plan.run.container / "code"


def container_name(plan: Plan) -> str:
    """Return the container's name, one per run folder."""
    return f"nemolaunch-{plan.job.launch.experiment}-{hashlib.sha256(plan.folder.encode()).hexdigest()[:8]}"


def run_command(plan: Plan) -> list[str]:
    """Return the command that trains a plan in its container, on this machine."""
    host = host_of(plan)
    return command(
        Container(
            engine=host.engine,
            image=host.image,
            mounts=tuple(mounts_of(plan)),
            workdir=str(code_folder(plan)),
            variables=tuple(sorted({*processes.VARIABLES, *planned_variables(plan)})),
            gpus=plan.device == "gpu",
            user=host.user,
            name=container_name(plan),
            init=host.init,
            raises_limits=host.raises_limits,
        ),
        ("python", "-m", RANKS, str(plan.run.plan)),
    )


def host_of(plan: Plan) -> ContainerHost:
    """Return what is known about the engine of a run in a container."""
    assert plan.container is not None, "the plan is not for a container on this machine"
    return plan.container


def planned_variables(plan: Plan, exported: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of the plan; exported values override them, except those of flags."""
    exported = exported or {}
    cache = {"HF_HOME": host_of(plan).cache or ""} if host_of(plan).cache else {}
    kept = {name: exported.get(name, value) for name, value in plan.environment.items()}
    return {**kept, **cache, **plan.variables}


def shell_variables(exported: Mapping[str, str], named: Collection[str] = ()) -> dict[str, str]:
    """Return the variables of the user's shell that ranks need, secrets included, and those that `--env NAME` names.

    They reach the container on its standard input: `inspect` would show them to everybody who may use the engine.
    """
    return {
        name: value
        for name, value in exported.items()
        if name in named or ((name in _NAMES or name.startswith(_PREFIXES)) and not name.endswith(_PATHS))
    }
