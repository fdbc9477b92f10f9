"""A job in a process that has imported the framework: torchrun's agent and the ranks, all of them forked.

The agent, how it starts ranks and what they are told are torchrun's own; only a rank's interpreter is not a new one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import uuid
from pathlib import Path

from nemolaunch.planning import Plan
from nemolaunch.system import shown_environment
from nemolaunch.system.secret_values import mask_streams

# Functions of which one attribute is the rank, read from a variable when their module is imported
ONLY_ON_RANK_0 = {
    "lightning.fabric.utilities.rank_zero": "RANK",
    "lightning_fabric.utilities.rank_zero": "RANK",
    "lightning_utilities.core.rank_zero": "RANK",
    "torchmetrics.utilities.prints": "LOCAL_RANK",
}


def run(plan_file: str, entry: str) -> int:
    """Run the ranks of a plan to their end, as forks of this process. Return 0 only if every one succeeded."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    plan = Plan.load(Path(plan_file))
    if plan.is_private:
        os.umask(0o077)
    mask_streams()
    gc.freeze()  # otherwise the first collection in each rank copies all objects of the framework
    agent = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=plan.num_gpus,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr=os.environ.get("PET_LOCAL_ADDR"),
        max_restarts=0,
        start_method="fork",
    )
    try:
        elastic_launch(agent, _rank)(entry, plan_file)
    except ChildFailedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _rank(entry: str, plan_file: str) -> None:
    """Be what `python -m ENTRY PLAN` is. The helpers that it spawns import `__main__` again."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    shown_environment.take_over(dict(os.environ))
    _forget_the_import()
    module = importlib.import_module(entry)
    sys.argv = [str(module.__file__), plan_file]
    sys.modules["__main__"] = module
    try:
        module.pretrain(plan_file)
    finally:
        atexit._run_exitfuncs()  # which a forked process leaves out


def _forget_the_import() -> None:
    """Change what was read from the environment or drawn when modules were imported, without this rank's variables."""
    for name, variable in ONLY_ON_RANK_0.items():
        only = getattr(sys.modules.get(name), "rank_zero_only", None)
        if only is not None and hasattr(only, "rank"):
            only.rank = int(os.environ[variable])
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # Python's own numbers are drawn anew after a fork
