"""The versions of what trains, on this node."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from nemolaunch.preflight.rows import Gpu

PACKAGES = (
    "torch", "nemo_toolkit", "megatron-bridge", "megatron-core", "transformer_engine", "lightning", "nemo_run",
    "transformers", "numpy",
)  # fmt: skip


def of_packages() -> dict[str, str]:
    """Return the versions of Python and of the installed packages."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def of_system(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Return the versions of the kernel and, with GPUs, of their driver."""
    drivers = {"driver": gpus[0].driver} if gpus else {}
    return {"kernel": platform.release(), **drivers}
