"""The versions of what trains, on this node."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from nemolaunch.facts.host import installed_versions
from nemolaunch.preflight.rows import Gpu

PACKAGES = (
    "torch", "nemo_toolkit", "megatron-bridge", "megatron-core", "transformer_engine", "lightning", "nemo_run",
    "transformers", "numpy",
)  # fmt: skip


def of_packages() -> dict[str, str]:
    """Return the versions of Python and of the installed packages."""
    return installed_versions(PACKAGES)


def of_system(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Return the versions of the kernel and, with GPUs, of their driver."""
    drivers = {"driver": gpus[0].driver} if gpus else {}
    return {"kernel": platform.release(), **drivers}
