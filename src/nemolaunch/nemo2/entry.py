"""The entry point of each training process. NeMo-Run, or torchrun in a container, starts `pretrain` once per rank.

NeMo is only imported inside functions: the checkpoint writer spawns helper processes that import this module
again, each of which would otherwise cost ten seconds and half a gigabyte.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.catalogue import version_pairs
from nemolaunch.data.index_files import remove_incomplete
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.data_digest import changed_files
from nemolaunch.nemo2 import patches
from nemolaunch.planning import Plan
from nemolaunch.preflight.in_job import require_fit_nodes
from nemolaunch.ranks import hang, slurm_rank
from nemolaunch.ranks.error_chain import chain, described
from nemolaunch.ranks.folder_watch import FolderWatch
from nemolaunch.ranks.log import log
from nemolaunch.run.folder import RunDir
from nemolaunch.system import processes
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.secret_values import mask_streams, masked, without_password
from nemolaunch.trust.checkpoint import check_checkpoint

END_AFTER_ERROR_S = 60

if TYPE_CHECKING:
    from lightning.pytorch import Callback


def pretrain(plan_file: str) -> None:
    """Train according to the plan, with all output in the rank's log file.

    A failure is recorded in the rank's error file and ends the process with exit code 1.
    """
    plan = Plan.load(Path(plan_file))
    if plan.exits_gracefully:
        slurm_rank.signals.catch()
    if plan.submission is not None:
        slurm_rank.adopt_slurm_variables()
    rank = int(os.environ.get("RANK") or 0)
    _die_with_parent()
    _log_to_file(plan.run, rank)
    os.environ.update(without_password(os.environ))
    mask_streams()
    hang.watch_start(plan.job.guards.hang_timeout)
    if rank == 0:
        FolderWatch(plan.run).start()
    try:
        if plan.submission is not None:
            slurm_rank.settle_checkpoints(plan.run, rank)
        if plan.job.guards.preflight:
            require_fit_nodes(plan)
        run_plan(plan)
    except BaseException as error:
        _record_error(plan.run, rank, error)
        hang.end_within(END_AFTER_ERROR_S)  # collectives and writers can block the interpreter's exit forever
        sys.exit(1)  # the traceback is already in the log


def run_plan(plan: Plan, callbacks: tuple[Callback, ...] = ()) -> None:
    """Compile the plan and train in this process, one rank of an initialised launch environment."""
    if int(os.environ.get("RANK") or 0) == 0:  # the rank that builds the index, which the others read
        _require_planned_data(plan)
        if plan.index_folder:
            remove_incomplete(Path(plan.index_folder))
    _require_known_names(plan)
    recipe, left_out = adapted_recipe(plan)
    for sentence in left_out:
        log.info(sentence)
    import fiddle as fdl

    from nemolaunch.nemo2.learning_rate import PlannedSchedule
    from nemolaunch.nemo2.mlflow_logger import loggers
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
    trainer.callbacks[:] = [*before, *trainer.callbacks, *callbacks, *mlflow, *after]
    if plan.stream is not None:
        _train_on_stream(plan, task, after)
    else:
        task()
        _note_end(plan, trainer)


def _require_planned_data(plan: Plan) -> None:
    """Refuse data that were replaced after planning, while the job was queued: everything planned is for the others.

    Raises:
        NemolaunchError: a data file has other content than when it was planned.
    """
    changed = changed_files(plan.digests)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise NemolaunchError(
            f"{changed[0]}{more} changed after this run was planned; start it again, which plans it for the new data"
        )


def _require_known_names(plan: Plan) -> None:
    """Refuse to load a checkpoint that names what NeMo's own do not, also if it came here while the job was queued.

    Raises:
        NemolaunchError: the names.
    """
    if plan.job.model.trust_remote_code:
        return
    own, resume = plan.run.last_checkpoint(), plan.job.checkpoint.resume
    named = own or (None if resume in ("auto", "never") else Path(resume))
    for folder in (named, plan.job.model.nemo_model):
        if folder and Path(folder).is_dir():
            check_checkpoint(Path(folder))


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
    task.keywords["data"].feed.close()
    if watch.error:
        raise NemolaunchError(watch.error)
    _note_end(plan, task.keywords["trainer"], end_of_data=watch.ended)


def _note_end(plan: Plan, trainer: Any, end_of_data: bool = False) -> None:
    """Record that the run has finished, if it has."""
    if trainer.is_global_zero and (end_of_data or trainer.global_step >= trainer.max_steps):
        found = {"step": trainer.global_step, "time": time.time(), "end_of_data": end_of_data}
        write_json(plan.run.finished, found)


def _die_with_parent() -> None:
    """Have the kernel end this process when the launcher's agent dies, so that no rank keeps training alone."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        processes.signal_on_parents_death(signal.SIGKILL)


def _log_to_file(run: RunDir, rank: int) -> None:
    """Redirect stdout and stderr, including those of C code and child processes, to the rank's log."""
    run.logs.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(run.rank_log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _record_error(run: RunDir, rank: int, error: BaseException) -> None:
    traceback.print_exc()
    sys.stderr.flush()
    first, *then = chain(error)
    record = {"rank": rank, "time": time.time(), "type": type(first).__name__, "message": masked(str(first))}
    record["then"] = [masked(described(each)) for each in then]
    if "SLURM_JOB_ID" in os.environ:
        record["start"] = slurm_rank.this_attempt()
    write_json(run.rank_error(rank), record)


if __name__ == "__main__":
    pretrain(sys.argv[1])
