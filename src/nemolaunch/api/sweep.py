"""Many runs as one: sweeps over fields of a job, and ladders of model sizes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemolaunch.api.launch import launch as launch_run
from nemolaunch.api.run import Run
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.job import Job, specs
from nemolaunch.launching.local import note_end
from nemolaunch.observe.status import statuses
from nemolaunch.planning import Plan
from nemolaunch.sweeps import execution
from nemolaunch.sweeps.execution import Outcome
from nemolaunch.sweeps.folder import lock_of, read_record, run_dir, write_record
from nemolaunch.sweeps.ladder import Ladder, check_family, fitted, ladder_points
from nemolaunch.sweeps.planned import SharedFinding, SweepPlan, check_finished, check_parallel, plan_sweep
from nemolaunch.sweeps.points import Point, grid, named
from nemolaunch.sweeps.results import Results, results_of
from nemolaunch.system import processes

log = logging.getLogger("nemolaunch")
Over = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]


class Sweep:
    """Many runs, planned and checked as one. `sweep` and `ladder` return one."""

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan

    def __repr__(self) -> str:
        return f"<Sweep {str(self.folder)!r}: {len(self.plan.runs)} runs>"

    @property
    def folder(self) -> Path:
        """The folder of the sweep, which has a run folder for each run."""
        return self.plan.folder

    @property
    def findings(self) -> tuple[SharedFinding, ...]:
        """Each finding once, with the runs that it concerns, most severe first."""
        return self.plan.findings

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of all runs, as estimated; None for a rehearsal on the CPU."""
        return self.plan.gpu_hours

    def raise_for_errors(self) -> None:
        """Raise NemolaunchError, whose message lists the errors, if a run has any."""
        self.plan.raise_for_errors()

    def launch(
        self,
        *,
        parallel: int = 1,
        retry_failed: bool = False,
        hf_token: str | None = None,
        tell: Callable[[str], None] = log.info,
    ) -> Outcome:
        """Start the runs that have not finished. Return how they ended, or on Slurm that they were submitted.

        Interrupted runs continue from their last checkpoint. Runs that failed before are not started again.

        Args:
            parallel: the number of runs at a time on this machine, each with GPUs of its own.
            retry_failed: also start the runs that failed before.
            hf_token: Hugging Face token for a gated tokenizer.
            tell: called with messages; they are logged at level INFO by default.

        Raises:
            UsageError: the machine is too small for so many runs at a time, or a finished run had other flags.
            NemolaunchError: a run has errors, or another process runs this sweep.
        """
        self.raise_for_errors()
        check_parallel(self.plan, parallel)
        check_finished(self.plan)
        with execution.locked(self.folder):
            return start_runs(
                self.plan, parallel=parallel, retry_failed=retry_failed, hf_token=hf_token, tell=tell
            )

    def stop(self, reason: str = "stopped by the user") -> list[str]:
        """End the runs that are going on or queued; see `stop_sweep`."""
        return stop_sweep(self.folder, reason)

    def results(self) -> Results:
        """Return what the runs have reached: `best`, `ranked`, `by_seed()`."""
        return results_of(self.folder)

    def fit(self) -> Ladder:
        """Fit the scaling law of a ladder, predict, and check what was predicted.

        Raises:
            NemolaunchError: too few runs have finished, or scipy is not installed.
        """
        return fitted(self.results())

    def report(self, output: str | Path | None = None) -> Path:
        """Write the comparison page, `report.html` in the folder of the sweep by default. Return its path."""
        from nemolaunch.sweeps.page import write_page

        return write_page(self.folder, None if output is None else Path(output))


def start_runs(
    plan: SweepPlan,
    *,
    parallel: int,
    retry_failed: bool,
    hf_token: str | None,
    tell: Callable[[str], None],
) -> Outcome:
    """Start the runs of a plan that have not finished; the caller holds the folder. See `Sweep.launch`."""
    write_record(plan.folder, plan.record())
    is_here = plan.runs[0].plan.job.launch.is_here
    sort = execution.settled_runs if is_here else execution.sorted_runs
    runs = sort(plan.runs, retry_failed=retry_failed)
    for line in execution.left_alone(runs):
        tell(line)

    def start(each: Plan, gpus: Sequence[str] | None) -> execution.Started:
        return launch_run(each, hf_token=hf_token, gpus=gpus, tell=tell)

    if not is_here:
        return execution.submit_all(runs.to_start, start, tell)
    return execution.run_here(runs.to_start, start, tell, parallel=parallel)


def stop_sweep(folder: Path, reason: str = "stopped by the user") -> list[str]:
    """End the runs of a sweep that are going on or queued, and start no more. Return their names.

    The process that starts runs on this machine stops them itself, each with a checkpoint; Ctrl-C meanwhile ends them
    without one.

    Raises:
        NemolaunchError: the folder is not that of a sweep, Slurm cannot be reached, or the sweep is going on on another
            machine.
    """
    paths = [run_dir(folder, member.name) for member in read_record(folder).members]
    found, _ = statuses([run.root for run in paths if run.plan.exists()])
    going = [Run(s.folder) for s in found if s.state in (*execution.ALIVE, "unknown")]
    lock = lock_of(folder)
    if (holder := lock.local_holder()) is not None:
        for run in going:
            if processes.members(run.folder):
                note_end(run_dir(folder, run.folder.name), "stopped", reason)
        processes.terminate([holder])
        try:
            processes.wait_until(lambda: lock.local_holder() != holder, float("inf"))
        except KeyboardInterrupt:
            processes.terminate([holder])
            processes.wait_until(lambda: lock.local_holder() != holder, float("inf"))
    elif elsewhere := lock.other_machine():
        raise NemolaunchError(f"this sweep is going on {elsewhere}: cancel it there")
    for run in going:  # those that are not of that process: jobs on Slurm, and what a killed one left
        run.stop(reason)
    return [run.folder.name for run in going]


def sweep(
    job: Job,
    over: Over,
    *,
    objective: str = "val_loss",
    force: Collection[str] = (),
    here: bool = True,
) -> Sweep:
    """Plan a run of a job for each combination of values, or for each of a list. Nothing is started.

        sweep = nl.sweep(job, {"lr": [1e-3, 3e-4], "seed": [1, 2]})

    Args:
        over: values by field of the job, under any of its names; or a list with the changes of each run.
        objective: the result by which runs are compared: `val_loss` or `loss`.
        force: codes of errors to turn into warnings.
        here: whether the runs will be started from this machine.

    Raises:
        UsageError: a field is unknown, two runs are the same, or there is nothing to plan.
    """
    points = grid(over) if isinstance(over, Mapping) else named(over)
    return Sweep(planned(job, points, objective=objective, force=force, here=here))


def planned(
    job: Job, points: Sequence[Point], *, here: bool, given: Mapping[str, str] | None = None, **options: Any
) -> SweepPlan:
    """Plan points of a job; `options` are those of `plan_sweep`."""
    if not job.model.model_name and not all("model_name" in point.changes for point in points):
        raise UsageError("a job needs a model: Job(model=...), see `nemolaunch models`")
    given = given or {spec.name: "given" for spec in specs() if job.get(spec.name) != spec.default}
    return plan_sweep(job, points, given=given, starts=here, **options)


def ladder(
    job: Job,
    sizes: Sequence[str | Path],
    *,
    tokens_per_param: float | Sequence[float] = 22.0,
    predict: Sequence[str | Path] = (),
    train_predicted: bool = False,
    over: Mapping[str, Sequence[Any]] | None = None,
    objective: str = "val_loss",
    force: Collection[str] = (),
    here: bool = True,
) -> Sweep:
    """Plan sizes of one family at some tokens per weight, and larger ones to predict. Nothing is started.

        ladder = nl.ladder(job, ["aixsim-60m", "aixsim-200m", "aixsim-400m", "aixsim-600m"], predict=["aixsim-1.1b"])
        ladder.launch()
        print(ladder.fit().predictions)

    Args:
        sizes: models to train: names, or YAML files.
        tokens_per_param: tokens for each weight; several let all five parameters of the law be fitted.
        predict: larger models of the family.
        train_predicted: train those too, after the others, to check the prediction.
        over: other fields, all combinations of which are trained for each size.
        objective: the loss to fit: `val_loss` or `loss`.

    Raises:
        UsageError: the sizes are too few, or of different families.
    """
    ratios = [tokens_per_param] if isinstance(tokens_per_param, (int, float)) else list(tokens_per_param)
    points, targets = ladder_points(list(map(str, sizes)), ratios, over or {}, list(map(str, predict)))
    found = planned(
        job.with_values(model_name=str(sizes[0])),
        points,
        here=here,
        predicted=targets,
        train_predicted=train_predicted,
        kind="ladder",
        objective=objective,
        force=force,
    )
    check_family(found)
    return Sweep(found)
