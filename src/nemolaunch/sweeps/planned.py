"""A sweep planned and checked as one: every run's plan, each finding said once, what all runs take together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemolaunch import arithmetic
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.estimate import SpeedAssumption
from nemolaunch.facts import run_folder
from nemolaunch.findings import Finding, by_severity, errors
from nemolaunch.job import Job, spec_of
from nemolaunch.planning import Plan, make_plan
from nemolaunch.planning.capacity import LIBRARIES_BYTES, USABLE_HOST_SHARE
from nemolaunch.run.folder import end_step
from nemolaunch.sweeps.folder import Member, Record, run_dir
from nemolaunch.sweeps.points import Point
from nemolaunch.system.quantities import counted

SHOWN_RUNS = 3
# Parts of a job that decide what is trained; a finished run with other values is another experiment
COMPARED = ("model", "data", "objective", "stream", "batch", "optimizer", "recipe")
GIB = 2**30


@dataclass(frozen=True)
class RunPlan:
    """One run of a sweep and its plan."""

    point: Point
    plan: Plan
    held_out: bool = False

    @property
    def weights(self) -> int:
        """The weights that tokens per parameter count: active ones, without the input embedding."""
        e = self.plan.estimate
        if e is None:
            return 0
        return arithmetic.parameters(self.plan.model_row.architecture, e.vocab_rows).active_non_embedding

    @property
    def tokens(self) -> int:
        """The tokens that it trains on."""
        return self.plan.estimate.time.tokens if self.plan.estimate else 0

    @property
    def finished_step(self) -> int | None:
        """The step at which the run already finished, None if it did not."""
        return end_step(self.plan.run, self.plan.max_steps) if self.plan.job.batch.max_steps else None


@dataclass(frozen=True)
class SharedFinding:
    """A finding and the names of the runs that have it, out of `total`."""

    finding: Finding
    runs: tuple[str, ...]
    total: int

    @property
    def where(self) -> str:
        """Which runs have it, in words."""
        if self.total == 1:
            return ""
        if len(self.runs) == self.total:
            return f"all {self.total} runs"
        shown = ", ".join(self.runs[:SHOWN_RUNS])
        more = len(self.runs) - SHOWN_RUNS
        return shown + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """The plan of a whole sweep. Nothing of it is started if one run has errors.

    Attributes:
        folder: of the sweep; each run has a folder of its own in it.
        runs: in the order in which they start.
        objective: the result by which they are compared.
        predicted: runs that a ladder predicts without training them.
    """

    folder: Path
    runs: tuple[RunPlan, ...]
    kind: str = "sweep"
    objective: str = "val_loss"
    predicted: tuple[RunPlan, ...] = ()

    @property
    def findings(self) -> tuple[SharedFinding, ...]:
        """Each finding once, with the runs that it concerns, most severe first."""
        found: dict[str, tuple[Finding, list[str]]] = {}
        for run in self.runs:
            for finding in run.plan.findings:
                found.setdefault(str(finding), (finding, []))[1].append(run.point.name)
        order = {id(f): i for i, f in enumerate(by_severity(f for f, _ in found.values()))}
        rows = sorted(found.values(), key=lambda row: order[id(row[0])])
        return tuple(
            SharedFinding(finding, tuple(dict.fromkeys(runs)), len(self.runs)) for finding, runs in rows
        )

    @property
    def refused(self) -> tuple[str, ...]:
        """The names of the runs that have errors."""
        return tuple(run.point.name for run in self.runs if errors(run.plan.findings))

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of all runs, as estimated; None for a rehearsal, for whose CPU there is no estimate."""
        found = [run.plan.estimate for run in self.runs]
        if any(e is None or not e.time.steps for e in found) or self.runs[0].plan.device == "cpu":
            return None
        return sum(e.time.gpu_hours for e in found if e is not None)

    @property
    def tokens(self) -> int:
        """Tokens of all runs."""
        return sum(run.tokens for run in self.runs)

    def record(self) -> Record:
        """Return what the folder of the sweep records."""
        members = tuple(
            Member(
                name=run.point.name,
                changes=run.point.changes,
                weights=run.weights,
                tokens=run.tokens,
                held_out=run.held_out,
            )
            for run in (*self.runs, *self.predicted)
        )
        return Record(kind=self.kind, members=members, objective=self.objective)

    def raise_for_errors(self) -> None:
        """Raise NemolaunchError, whose message lists the errors, if a run has any."""
        if self.refused:
            lines = [f"{f.finding} ({f.where})" for f in self.findings if errors([f.finding])]
            raise NemolaunchError("\n  ".join([self.refusal, *lines]))

    @property
    def refusal(self) -> str:
        """That nothing was started, and because of how many runs."""
        return f"{self.verdict}; nothing was started"

    @property
    def verdict(self) -> str:
        """Whether the sweep can start, and else how many runs have errors."""
        if not self.refused:
            return "ready to launch"
        have = "has" if len(self.refused) == 1 else "have"
        return f"{len(self.refused)} of {counted(len(self.runs), 'run')} {have} errors"


def plan_sweep(
    job: Job,
    points: Sequence[Point],
    *,
    kind: str = "sweep",
    objective: str = "val_loss",
    predicted: Sequence[Point] = (),
    train_predicted: bool = False,
    force: Collection[str] = (),
    given: Mapping[str, str] | None = None,
    speed: SpeedAssumption | None = None,
    starts: bool = False,
) -> SweepPlan:
    """Plan each run of a sweep in a folder of its own below the job's run folder.

    Args:
        predicted: points that a ladder predicts; they are trained only if `train_predicted`, after the others.
        given: origins of the job's own values; those of a point come from the sweep.
        starts: whether the runs are about to start from this machine.

    Raises:
        UsageError: there is nothing to plan, or the folder is that of a single run.
    """
    folder = run_folder(job).root
    if (folder / "plan.json").exists():
        raise UsageError(
            f"{folder} is the folder of a run; use another --experiment or --output-dir for the {kind}"
        )
    runs = []
    for number, point in enumerate((*points, *predicted), 1):
        held_out = number > len(points)
        starting = starts and (train_predicted or not held_out)
        plan = _planned(job, point, folder, force, given, speed, starting)
        runs.append(RunPlan(point, plan, held_out))
    trained = len(runs) if train_predicted else len(points)
    return SweepPlan(
        folder=folder,
        runs=tuple(runs[:trained]),
        kind=kind,
        objective=objective,
        predicted=tuple(runs[trained:]),
    )


def _planned(
    job: Job,
    point: Point,
    folder: Path,
    force: Collection[str],
    given: Mapping[str, str] | None,
    speed: SpeedAssumption | None,
    starts: bool,
) -> Plan:
    own = point.of(job).with_values(
        output_dir=str(run_dir(folder, point.name).root), experiment=experiment(folder, point)
    )
    origins = {
        **(given or {}),
        **dict.fromkeys(point.changes, "sweep"),
        "output_dir": "sweep",
        "experiment": "sweep",
    }
    try:
        return make_plan(own, given=origins, force=force, speed=speed, starts=starts)
    except UsageError as error:
        raise UsageError(f"run {point.name}: {error}") from None


def experiment(folder: Path, point: Point) -> str:
    """Return the name of a run's Slurm job and of its experiment in W&B and MLflow."""
    return f"{folder.name}.{point.name}"[:128]


def other_flags(run: RunPlan) -> dict[str, tuple[object, object]]:
    """Return what a finished run was trained with and the sweep now asks for otherwise: field → (then, now)."""
    if run.finished_step is None:
        return {}
    then, now = Plan.of_run(run.plan.run).job, run.plan.job
    found = {}
    for name in now.values():
        spec = spec_of(name)
        if spec.part in COMPARED and then.get(name) != now.get(name):
            found[spec.flag] = (then.get(name), now.get(name))
    return found


def check_finished(plan: SweepPlan) -> None:
    """Refuse to put runs beside each other that were trained with other flags than the sweep now has.

    Raises:
        UsageError: naming the flags and the values of each such run.
    """
    problems = []
    for run in plan.runs:
        if changed := other_flags(run):
            shown = ", ".join(f"{flag} {then} → {now}" for flag, (then, now) in changed.items())
            problems.append(f"{run.point.name} finished with other flags: {shown}")
    if problems:
        where = "another --experiment starts a new sweep"
        raise UsageError("; ".join(problems) + f"; give the earlier values, or remove its folder; {where}")


def check_parallel(plan: SweepPlan, parallel: int) -> None:
    """Refuse more runs at a time than this machine has GPUs or memory for.

    Raises:
        UsageError: with the numbers.
    """
    if parallel < 1:
        raise UsageError(f"--parallel {parallel}: at least one run at a time")
    first = plan.runs[0].plan
    if parallel == 1:
        return
    if not first.job.launch.is_here:
        raise UsageError(
            f"--parallel {parallel} is for runs on this machine; on Slurm, the queue decides how many run"
        )
    if first.job.launch.engine:
        raise UsageError(
            f"--parallel {parallel}: runs in containers on this machine are started one at a time"
        )
    from nemolaunch.facts import look_at_host

    host = look_at_host()
    at_a_time = min(parallel, len(plan.runs))
    largest = max(run.plan.num_gpus for run in plan.runs)
    if first.device == "gpu" and largest * at_a_time > len(host.gpus):
        raise UsageError(
            f"--parallel {parallel}: {at_a_time} runs of {counted(largest, 'GPU')} need {largest * at_a_time}, and "
            f"this machine has {len(host.gpus)}; use --parallel {max(1, len(host.gpus) // largest)}"
        )
    needs = sorted((_host_bytes(run.plan) for run in plan.runs), reverse=True)
    there = host.memory_bytes * USABLE_HOST_SHARE
    if sum(needs[:at_a_time]) > there:
        fits = next(n for n in range(at_a_time, 0, -1) if n == 1 or sum(needs[:n]) <= there)
        raise UsageError(
            f"--parallel {parallel}: {at_a_time} runs need {sum(needs[:at_a_time]) / GIB:,.1f} GiB of memory, and this "
            f"machine has {host.memory_bytes / GIB:,.1f} GiB; use --parallel {fits}"
        )


def _host_bytes(plan: Plan) -> int:
    """Return the memory of this machine that a run takes, as estimated."""
    e = plan.estimate
    if e is None:
        return 0
    each = e.memory.host if e.rehearsal is None else e.rehearsal.total
    return plan.num_gpus * (each + LIBRARIES_BYTES)
