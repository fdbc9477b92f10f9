"""What trains a job: NeMo 2, or Megatron-Bridge in an environment of its own."""

from __future__ import annotations

from nemolaunch.catalogue.containers import Container, container, nemo_tag
from nemolaunch.facts import Facts
from nemolaunch.job import Job

NEMO2, BRIDGE = "nemo2", "bridge"


def backend_of(job: Job, facts: Facts) -> tuple[str, str]:
    """Return what trains a job, and why: what its image or environment has, and NeMo 2 where both are."""
    if job.launch.backend != "auto":
        return job.launch.backend, "given"
    if job.launch.runtime is not None:
        image = image_of(job)
        if image is not None and image.megatron_bridge and not image.nemo2:
            return BRIDGE, f"{image.image} has Megatron-Bridge, and no NeMo 2 for LLMs"
        return NEMO2, "the default"
    found = facts.interpreter
    if found is not None and found.bridge and facts.host.nemo is None:
        return BRIDGE, f"{found.path} has Megatron-Bridge, and this environment no NeMo"
    return NEMO2, "the default"


def image_of(job: Job) -> Container | None:
    """Return what is known of the image that a job runs in; None if it runs in none, or nothing is known."""
    tag = nemo_tag(job.launch.container_image) if job.launch.runtime is not None else None
    return container(tag) if tag else None


def trains_with_bridge(job: Job) -> bool:
    """Return whether Megatron-Bridge trains a resolved job."""
    return job.launch.backend == BRIDGE


def interpreter_of(job: Job, facts: Facts) -> str | None:
    """Return the interpreter that trains a resolved job, if it is neither that of this command nor a container's."""
    if not trains_with_bridge(job) or facts.interpreter is None or facts.interpreter.here:
        return None
    return facts.interpreter.path
