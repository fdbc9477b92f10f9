"""What workers import, imported while the command still looks at its input."""

from __future__ import annotations

from typing import Any

from nemolaunch.system.worker_pool import prepare_workers

MODULES = ("nemolaunch.tokenization.work", "numpy", "orjson", "fastokens")


def start_standby() -> Any:
    """Start the process that workers are forked from, unless it runs. Return multiprocessing's context for them."""
    return prepare_workers(MODULES)
