"""A sweep on the terminal: its plan, its runs as they start and end, its results."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from nemolaunch.api.sweep import Sweep
from nemolaunch.cli.views.console import SafeConsole
from nemolaunch.cli.views.estimate import row
from nemolaunch.cli.views.live_run import signals_as_interrupts
from nemolaunch.cli.views.paint import write_parts
from nemolaunch.cli.views.units import count, duration
from nemolaunch.cli.views.watch import say, say_done, short
from nemolaunch.errors import NemolaunchError
from nemolaunch.job import spec_of
from nemolaunch.sweeps.execution import Outcome
from nemolaunch.sweeps.ladder import fitted, ladder_lines
from nemolaunch.sweeps.planned import SweepPlan
from nemolaunch.sweeps.results import Results, label, summary
from nemolaunch.system.quantities import counted

SHOWN = 40  # runs in the list of a plan


def print_plan(plan: SweepPlan) -> None:
    """Print what would run, and what it takes."""
    for line in plan_lines(plan):
        write_parts([("", line)], indent=14)


def plan_lines(plan: SweepPlan) -> list[str]:
    """Return the plan of a sweep as lines: the verdict, the runs, what they take together."""
    done = sum(run.finished_step is not None for run in plan.runs)
    lines = [
        row("verdict", plan.verdict),
        row(
            plan.kind,
            f"{counted(len(plan.runs), 'run')} in {plan.folder}" + (f", {done} finished" if done else ""),
        ),
    ]
    heads = ("run", "steps", "tokens", "processes")
    rows = [
        (run.point.name, steps_of(run.plan), count(run.tokens), str(run.plan.world_size)) for run in plan.runs
    ]
    lines += [row("runs" if i == 0 else "", text) for i, text in enumerate(columns([heads, *rows[:SHOWN]]))]
    if len(rows) > SHOWN:
        lines.append(row("", f"and {len(rows) - SHOWN} more"))
    lines += [row("predicts", f"{run.point.name}: {count(run.weights)} weights, {count(run.tokens)} tokens")
              for run in plan.predicted]  # fmt: skip
    return [*lines, row("tokens", count(plan.tokens)), *_cost(plan)]


def steps_of(plan: Any) -> str:
    """Return the steps of a run as text."""
    return f"{plan.max_steps:,}" if plan.job.batch.max_steps else "not known"


def _cost(plan: SweepPlan) -> list[str]:
    if plan.gpu_hours is not None:
        gpus = {run.plan.estimate.gpu.name for run in plan.runs if run.plan.estimate}
        return [
            row("cost", f"{plan.gpu_hours:,.1f} GPU-hours in all, estimated for {' and '.join(sorted(gpus))}")
        ]
    times = [
        run.plan.estimate.time for run in plan.runs if run.plan.estimate and run.plan.estimate.time.steps
    ]
    if times and len(times) == len(plan.runs) and all(t.is_measured for t in times):
        return [row("time", f"{duration(sum(t.total_s for t in times))} one after another")]
    return [row("time", "not estimated for a CPU; --speed-from RUN uses an earlier run's speed")]


def print_findings(plan: SweepPlan) -> None:
    """Print each finding once, with the runs that it concerns, to stderr."""
    sys.stdout.flush()
    for shared in plan.findings:
        head, bracket, text = str(shared.finding).partition("]: ")
        where = f" ({shared.where})" if shared.where else ""
        write_parts([(shared.finding.severity.value, head + bracket), ("", text + where)], stream=sys.stderr)


def run(sweep: Sweep, hf_token: str | None, *, dry_run: bool, **options: Any) -> int:
    """Show a planned sweep and, unless it is a dry run, start it and show its results. Return the exit code.

    Args:
        hf_token: that of the job, which plans do not hold.
        options: how runs are started, as `Sweep.launch` takes it.

    Raises:
        NemolaunchError: a run has errors, or failed.
    """
    if dry_run:
        print_plan(sweep.plan)
    print_findings(sweep.plan)
    if sweep.plan.refused:
        raise NemolaunchError(sweep.plan.refusal)
    return 0 if dry_run else conclude(sweep, launch_and_show(sweep, hf_token, **options))


def launch_and_show(sweep: Sweep, hf_token: str | None, **options: Any) -> Outcome:
    """Start a sweep, and tell how each run begins and ends."""
    console = SafeConsole()
    try:
        with signals_as_interrupts():
            return sweep.launch(hf_token=hf_token, tell=lambda text: say(console, text), **options)
    except KeyboardInterrupt:
        say(console, "the same command continues")
        raise


def conclude(sweep: Sweep, outcome: Outcome) -> int:
    """Print the results and write the page. Return 0.

    Raises:
        NemolaunchError: a run failed or was stopped.
    """
    console = SafeConsole()
    results = sweep.results()
    if outcome.submitted:
        where = short(sweep.folder)
        say_done(
            console, f"submitted {counted(len(outcome.submitted), 'run')}; see `nemolaunch status {where}`"
        )
    else:
        for line in (*result_lines(results), *law_lines(results)):
            say(console, line)
        say_done(console, f"page: {short(sweep.report())}")
    if problems := [*_to_continue("stopped", outcome.stopped), *_to_continue("failed", outcome.failed)]:
        raise NemolaunchError("; ".join(problems))
    return 0


def _to_continue(how: str, runs: Collection[str]) -> list[str]:
    """Return how many runs failed or were stopped, and what starts them again; nothing if there are none."""
    if not runs:
        return []
    what, again = counted(len(runs), "run"), "it" if len(runs) == 1 else "them"
    if how == "failed":
        then = f"the same command with --retry-failed starts {again} again"
    else:
        then = f"the same command continues {again}"
    return [f"{what} {how}: {', '.join(runs)}; {then}"]


def law_lines(results: Results) -> list[str]:
    """Return the law of a ladder and its predictions as lines, or why there is none; nothing for a sweep."""
    if results.record.kind != "ladder":
        return []
    try:
        return ["", *ladder_lines(fitted(results))]
    except NemolaunchError as error:
        return ["", f"no scaling law: {error}"]


def result_lines(results: Results) -> list[str]:
    """Return the runs of a sweep and their results as lines, the best first, then those that have none."""
    fields = results.fields
    heads = ("RUN", "STATE", "STEP", "VAL LOSS", "LOSS", "DETAIL")
    finished = list(results.ranked)
    others = [run for run in results.runs if run not in finished]
    rows = [
        (
            run.name + (" (predicted)" if run.member.held_out else ""),
            run.state,
            f"{run.step}/{run.max_steps}" if run.max_steps else "",
            "" if run.val_loss is None else f"{run.val_loss:.4f}",
            "" if run.loss is None else f"{run.loss:.4f}",
            run.detail[:80],
        )
        for run in (*finished, *others)
    ]
    lines = [summary(results), "", *columns([heads, *rows])]
    groups = [group for group in results.by_seed() if group.deviation is not None]
    if groups:
        lines += ["", f"{label(results.objective)} over seeds, mean ± standard deviation:"]
        for group in groups:
            told = ", ".join(f"{spec_of(n).flag} {group.changes[n]}" for n in fields if n in group.changes)
            lines.append(
                f"  {group.mean:.4f} ± {group.deviation:.4f} ({len(group.values)} seeds)  {told}".rstrip()
            )
    return lines


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines of aligned columns, without those that are empty."""
    shown = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])] or [0]
    widths = {i: max(len(row[i]) for row in rows) for i in shown}
    return ["  ".join(row[i].ljust(widths[i]) for i in shown).rstrip() for row in rows]
