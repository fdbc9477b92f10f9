"""The entry point of each training process. NeMo-Run, or torchrun in a container, starts `pretrain` once per rank.

NeMo is only imported inside functions: the checkpoint writer spawns helper processes that import this module
again, each of which would otherwise cost ten seconds and half a gigabyte.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from nemolaunch.catalogue import version_pairs
from nemolaunch.errors import NemolaunchError
from nemolaunch.nemo2 import patches
from nemolaunch.planning import Plan
from nemolaunch.preflight.in_job import require_fit_nodes
from nemolaunch.ranks import phases, rank_process
from nemolaunch.ranks.known_names import require_known_names
from nemolaunch.ranks.log import log

if TYPE_CHECKING:
    from lightning.pytorch import Callback


# What `run_plan` imports when it trains
PRELOADED = (
    "fiddle", "nemolaunch.nemo2.recipe", "nemolaunch.nemo2.watch", "nemolaunch.nemo2.mlflow_logger",
    "nemolaunch.nemo2.ramp", "nemolaunch.nemo2.seeding", "nemolaunch.nemo2.phases",
)  # fmt: skip


def pretrain(plan_file: str) -> None:
    """Train according to the plan, with all output in the rank's log file.

    A failure is recorded in the rank's error file and ends the process with exit code 1.
    """
    rank_process.run_rank(plan_file, _train)


def preload(device: str) -> None:
    """Import what training needs, in a process that ranks are forked from."""
    patches.apply()
    if device == "cpu":
        from nemolaunch import cpu

        cpu.install()
    for name in PRELOADED:
        importlib.import_module(name)


def _train(plan: Plan) -> None:
    if plan.job.guards.preflight:
        require_fit_nodes(plan)
    run_plan(plan)


def run_plan(plan: Plan, callbacks: tuple[Callback, ...] = ()) -> None:
    """Compile the plan and train in this process, one rank of an initialised launch environment."""
    rank_process.prepare_data(plan)
    if phases.IMPORTED not in os.environ:
        phases.begin(plan.run, "importing NeMo")
    require_known_names(plan)
    recipe, left_out = adapted_recipe(plan)
    for sentence in left_out:
        log.info(sentence)
    import fiddle as fdl

    from nemolaunch.nemo2.learning_rate import PlannedSchedule
    from nemolaunch.nemo2.mlflow_logger import loggers
    from nemolaunch.nemo2.phases import Phases
    from nemolaunch.nemo2.ramp import use_batch_sizes
    from nemolaunch.nemo2.seeding import seed_ranks
    from nemolaunch.nemo2.watch import callbacks_of

    seed_ranks(plan.job.batch.seed)
    task: Any = fdl.build(recipe)
    task.keywords["optim"].lr_scheduler = PlannedSchedule(plan.schedule)
    use_batch_sizes(task.keywords["data"], plan)
    trainer = task.keywords["trainer"]
    mlflow = loggers(plan)
    task.keywords["log"].extra_loggers.extend(mlflow)
    before, after = callbacks_of(plan)
    trainer.callbacks[:] = [Phases(plan), *before, *trainer.callbacks, *callbacks, *mlflow, *after]
    phases.begin(plan.run, "preparing the data")
    if plan.stream is not None:
        _train_on_stream(plan, task, after)
    else:
        task()
        _note_end(plan, trainer)


def adapted_recipe(plan: Plan) -> tuple[Any, list[str]]:
    """Return the recipe that this machine trains, and what it does not support of the compiled one."""
    for name, value in plan.environment.items():
        os.environ.setdefault(name, value)
    _apply_patches(plan)
    plain = importlib.util.find_spec("transformer_engine") is None
    if plain or plan.device == "cpu":
        from nemolaunch import cpu

        (cpu.install if plan.device == "cpu" else cpu.install_layers)()
    from nemolaunch.nemo2.recipe import compile_recipe

    recipe = compile_recipe(plan)
    if not plain and plan.device != "cpu":
        return recipe, []
    return recipe, (cpu.adapt if plan.device == "cpu" else cpu.adapt_for_plain_layers)(recipe)


def _apply_patches(plan: Plan) -> None:
    """Apply what these releases of NeMo and Megatron need, and log what concerns the model."""
    applied = patches.apply()
    for patch in version_pairs.patches():
        if patch.name in applied and patch.concerns(plan.model_row.recipe.model_class):
            log.info(f"patch {patch}")


def _train_on_stream(plan: Plan, task: Any, callbacks: list[Callback]) -> None:
    """Train on a stream of rows, which replaces the recipe's placeholder data module."""
    from nemolaunch.nemo2.stream_data import StreamDataModule
    from nemolaunch.nemo2.stream_watch import StreamWatch

    task.keywords["data"] = StreamDataModule(plan, task.keywords["data"].tokenizer)
    (watch,) = (callback for callback in callbacks if isinstance(callback, StreamWatch))
    task()
    task.keywords["data"].source.feed.close()
    if watch.steps.error:
        raise NemolaunchError(watch.steps.error)
    _note_end(plan, task.keywords["trainer"], end_of_data=watch.steps.ended)


def _note_end(plan: Plan, trainer: Any, end_of_data: bool = False) -> None:
    """Record that the run has finished, if it has."""
    if trainer.is_global_zero:
        rank_process.note_end(plan, trainer.global_step, end_of_data=end_of_data)


if __name__ == "__main__":
    pretrain(sys.argv[1])
