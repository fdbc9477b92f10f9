"""The releases of NeMo and Megatron-Core that will train a job: those of its container, or those installed here."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.catalogue.containers import Container, container, nemo_tag
from nemolaunch.catalogue.version_pairs import Patch, patches_for
from nemolaunch.facts import Facts
from nemolaunch.job import Job


@dataclass(frozen=True, kw_only=True)
class Software:
    """What trains a job.

    Attributes:
        tag: of NVIDIA's NeMo container; None if the job runs in this environment.
        container: the container of that tag, if it is known.
        nemo, megatron: releases; None if unknown.
    """

    tag: str | None
    container: Container | None
    nemo: str | None
    megatron: str | None

    def __str__(self) -> str:
        where = f"nvcr.io/nvidia/nemo:{self.tag}" if self.tag else "this environment"
        return f"{where} (NeMo {self.nemo}, Megatron-Core {self.megatron})"


def software(job: Job, facts: Facts) -> Software | None:
    """Return what will train a job; None if its image is not one of NVIDIA's, or nothing is installed."""
    launch, host = job.launch, facts.host
    if launch.runtime is not None:
        tag = nemo_tag(launch.container_image)
        if tag is None:
            return None
        found = container(tag)
        nemo, megatron = (found.nemo, found.megatron) if found else (None, None)
        return Software(tag=tag, container=found, nemo=nemo, megatron=megatron)
    if host.nemo is None or host.megatron is None:
        return None
    return Software(tag=None, container=None, nemo=host.nemo, megatron=host.megatron)


def patches_of(what: Software | None, model_class: str) -> tuple[Patch, ...]:
    """Return the patches that training a model needs with these releases."""
    return patches_for(what.megatron, model_class) if what and what.nemo and what.megatron else ()
