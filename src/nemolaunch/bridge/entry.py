"""The entry point of each training process with Megatron-Bridge: `python -m nemolaunch.bridge.entry PLAN.json`.

Bridge is only imported inside functions. What processes that the checkpoint writer spawns need is done at import: they
import this module again, as `__main__`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from nemolaunch.bridge import patches
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.preflight.in_job import require_fit_nodes
from nemolaunch.ranks import phases, rank_process
from nemolaunch.ranks.known_names import require_known_names
from nemolaunch.ranks.log import log
from nemolaunch.run.attempts import expand_nodes
from nemolaunch.system import processes

if TYPE_CHECKING:
    from megatron.bridge.training.callbacks import Callback
    from megatron.bridge.training.config import ConfigContainer


# What `run_plan` imports when it trains
PRELOADED = (
    "megatron.bridge.training.pretrain", "nemolaunch.bridge.config", "nemolaunch.bridge.callbacks",
    "nemolaunch.bridge.datasets", "nemolaunch.bridge.loss", "nemolaunch.bridge.param_groups",
    "nemolaunch.bridge.ramp",
)  # fmt: skip


def pretrain(plan_file: str) -> None:
    """Train according to the plan, with all output in the rank's log file.

    A failure is recorded in the rank's error file and ends the process with exit code 1.
    """
    rank_process.run_rank(plan_file, _train)


def preload(device: str) -> None:
    """Import what training needs, in a process that ranks are forked from."""
    prepare(device)
    for name in PRELOADED:
        importlib.import_module(name)


def _train(plan: Plan) -> None:
    _meet_on_first_node()
    if plan.job.guards.preflight:
        require_fit_nodes(plan)
    run_plan(plan)


def _meet_on_first_node() -> None:
    """Tell Megatron where ranks that srun has started meet: its own parser of lists of nodes knows few forms."""
    nodes = expand_nodes(os.environ.get("SLURM_JOB_NODELIST", ""))
    if nodes and "TORCHELASTIC_RUN_ID" not in os.environ:
        os.environ.setdefault("MASTER_ADDR", nodes[0])


def run_plan(plan: Plan, callbacks: tuple[Callback, ...] = ()) -> None:
    """Compile the plan and train in this process, one rank of an initialised launch environment."""
    rank_process.prepare_data(plan)
    if phases.IMPORTED not in os.environ:
        phases.begin(plan.run, "importing Megatron-Bridge")
    config, left_out = adapted_config(plan)
    for sentence in left_out:
        log.info(sentence)
    from megatron.bridge.training import pretrain as training

    from nemolaunch.bridge import param_groups
    from nemolaunch.bridge.callbacks import callbacks_of
    from nemolaunch.bridge.datasets import Datasets
    from nemolaunch.bridge.loss import StepLoss
    from nemolaunch.bridge.ramp import PlannedBatches

    phases.begin(plan.run, "building the model and preparing the data")
    param_groups.match_whatever_the_rates()
    loss, data, batches = StepLoss(plan), Datasets(plan), PlannedBatches(plan)
    data.install()
    batches.install()
    training.pretrain(
        config, loss.forward_step(), callbacks=[*callbacks_of(plan, loss, data, batches), *callbacks]
    )
    if data.steps is not None and data.steps.error:
        raise NemolaunchError(data.steps.error)


def adapted_config(plan: Plan) -> tuple[ConfigContainer, list[str]]:
    """Return the configuration that this machine trains, and what it does not support of the plan."""
    for name, value in plan.environment.items():
        os.environ.setdefault(name, value)
    prepare(plan.device)
    from nemolaunch.bridge.config import compile_config

    require_known_names(plan)
    return compile_config(plan)


def prepare(device: str) -> None:
    """Make Bridge importable in this process, and on a CPU able to train."""
    for name in patches.apply():
        log.info(f"patch {name}")
    if device == "cpu":
        from nemolaunch.bridge import on_cpu

        on_cpu.install()


def prepare_helper() -> None:
    """Make Megatron importable in a process that the checkpoint writer has spawned.

    On a CPU it must find a device: Megatron divides by their number, and the rank would wait for ever for a helper
    that ends with an error (megatron/core/dist_checkpointing/strategies/async_utils.py).
    """
    processes.signal_on_parents_death(signal.SIGKILL)
    patches.apply()
    import torch

    if not torch.cuda.is_available():
        from nemolaunch.cpu import device

        device.install()


if __name__ == "__mp_main__":
    prepare_helper()
if __name__ == "__main__":
    pretrain(sys.argv[1])
