"""A search: trials that Optuna draws from the results so far, each a run in the folder of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemolaunch.api.sweep import planned, start_runs
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.job import Job, spec_of
from nemolaunch.sweeps import execution
from nemolaunch.sweeps.execution import Outcome
from nemolaunch.sweeps.planned import SweepPlan, check_finished, check_parallel
from nemolaunch.sweeps.points import MOST_RUNS, Point
from nemolaunch.sweeps.results import Results, results_of
from nemolaunch.sweeps.search import Study, check_sampler
from nemolaunch.sweeps.space import Space, ends

log = logging.getLogger("nemolaunch")


class Search:
    """Trials of a job within a space. Runs of its outermost values are planned at once, each trial when it is drawn.

    Args:
        space: what may be drawn, by field.
        sampler: `optuna:tpe`, `optuna:random` or `optuna:qmc`.
        trials: their number in all; the same search again goes on to it.
        options: of planning, as `planned` takes them.

    Raises:
        UsageError: there is no such sampler, or no trial, or the trials would not run on this machine.
        NemolaunchError: Optuna is not installed.
    """

    def __init__(self, job: Job, space: Space, *, sampler: str, trials: int, **options: Any) -> None:
        if not 1 <= trials <= MOST_RUNS:
            raise UsageError(f"--trials {trials}: between 1 and {MOST_RUNS:,}")
        check_sampler(sampler)
        self.job, self.space, self.sampler, self.trials = job, space, sampler, trials
        self._options = options
        self.plan = self._planned(ends(space))
        if not self.plan.runs[0].plan.job.launch.is_here:
            raise UsageError(
                "--sampler is for runs on this machine: a trial is drawn from the results of earlier ones; "
                "on Slurm, start the search in a job of its own, with --executor local"
            )

    @property
    def folder(self) -> Path:
        """The folder of the search, which has a run folder for each trial."""
        return self.plan.folder

    def launch(
        self,
        *,
        parallel: int = 1,
        hf_token: str | None = None,
        tell: Callable[[str], None] = log.info,
    ) -> Outcome:
        """Train trials until there are as many as wanted, `parallel` at a time. Return how they ended.

        Those that were interrupted come first. A trial that fails, or whose plan has errors, counts as one.

        Raises:
            UsageError: the machine is too small for so many at a time, or the search has begun with other flags.
            NemolaunchError: the outermost runs have errors, or another process runs this search.
        """
        self.plan.raise_for_errors()
        check_parallel(self.plan, parallel)
        outcome = Outcome()
        with execution.locked(self.folder):
            study = Study(self.folder, self.space, self.sampler, self.job.get("seed") or 0)
            if done := study.succeeded():
                check_finished(self._planned(done))
            waiting = study.interrupted()
            while waiting or study.num_trials < self.trials:
                while len(waiting) < parallel and study.num_trials < self.trials:
                    waiting.append(study.next())
                batch, waiting = waiting[:parallel], waiting[parallel:]
                self._train(batch, study, outcome, parallel=parallel, hf_token=hf_token, tell=tell)
        return outcome

    def _train(self, batch: Sequence[Point], study: Study, outcome: Outcome, **options: Any) -> None:
        """Train trials, and tell the study what they have reached."""
        fit: list[Point] = []
        for trial in batch:
            try:
                self._planned([trial]).raise_for_errors()
                fit.append(trial)
            except NemolaunchError as error:
                outcome.failed[trial.name] = str(error)
                options["tell"](f"{trial.name} is not started: {error}")
                study.tell(trial, None)
        if not fit:
            return
        for trial in fit:
            options["tell"](f"{trial.name} of {self.trials}: {drawn(trial.changes)}")
        sweep = self._planned(fit)
        ended = start_runs(sweep, retry_failed=False, **options)
        outcome.finished += ended.finished
        outcome.failed |= ended.failed
        reached = {run.name: run.value for run in self.results().runs if run.is_finished}
        alive = {run.point.name for run in execution.sorted_runs(sweep.runs, retry_failed=False).alive}
        for trial in fit:
            if trial.name not in alive:  # else another process trains it, and the next search asks again
                study.tell(trial, reached.get(trial.name))

    def results(self) -> Results:
        """Return what the trials have reached: `best`, `ranked`."""
        return results_of(self.folder)

    def report(self, output: Path | None = None) -> Path:
        """Write the comparison page, `report.html` in the folder by default. Return its path."""
        from nemolaunch.sweeps.page import write_page

        return write_page(self.folder, output)

    def _planned(self, points: Sequence[Point]) -> SweepPlan:
        return planned(self.job, points, **self._options)


def drawn(changes: Mapping[str, Any]) -> str:
    """Return what was drawn for a trial, as flags."""
    return " ".join(f"{spec_of(name).flag} {value}" for name, value in changes.items())
