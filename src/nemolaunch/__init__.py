"""nemolaunch: describe a pretraining job once, check it anywhere, run it on a CPU, a GPU box or Slurm.

    import nemolaunch as nl

    job = nl.Job(model="llama32_1b", tokenizer="my/tokenizer", data="data", tp=2, max_steps=1000, lr=3e-4)
    plan = nl.plan(job)
    plan.raise_for_errors()
    run = nl.launch(plan)
    run.wait()

Importing it imports nothing else: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemolaunch.api.convert import convert
    from nemolaunch.api.evaluate import evaluate
    from nemolaunch.api.launch import launch
    from nemolaunch.api.migrate import migrate
    from nemolaunch.api.planning import plan
    from nemolaunch.api.run import Run
    from nemolaunch.api.sweep import Sweep, ladder, sweep
    from nemolaunch.api.tokenize import tokenize
    from nemolaunch.errors import NemolaunchError, UsageError
    from nemolaunch.findings import Finding
    from nemolaunch.job import Job
    from nemolaunch.observe.status import Status
    from nemolaunch.planning import Plan, PlanError

_HOMES = {
    "Finding": "nemolaunch.findings",
    "Job": "nemolaunch.job",
    "NemolaunchError": "nemolaunch.errors",
    "Plan": "nemolaunch.planning",
    "PlanError": "nemolaunch.planning",
    "Run": "nemolaunch.api.run",
    "Status": "nemolaunch.observe.status",
    "Sweep": "nemolaunch.api.sweep",
    "UsageError": "nemolaunch.errors",
    "convert": "nemolaunch.api.convert",
    "evaluate": "nemolaunch.api.evaluate",
    "ladder": "nemolaunch.api.sweep",
    "launch": "nemolaunch.api.launch",
    "migrate": "nemolaunch.api.migrate",
    "plan": "nemolaunch.api.planning",
    "sweep": "nemolaunch.api.sweep",
    "tokenize": "nemolaunch.api.tokenize",
}

__all__ = [
    "Finding", "Job", "NemolaunchError", "Plan", "PlanError", "Run", "Status", "Sweep", "UsageError", "__version__",
    "convert", "evaluate", "ladder", "launch", "migrate", "plan", "sweep", "tokenize",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nemolaunch")
    if name not in _HOMES:
        raise AttributeError(f"module 'nemolaunch' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
