"""A search on the terminal: what it draws from, its trials as they start and end, its results."""

from __future__ import annotations

from typing import Any

from nemolaunch.api.search import Search, drawn
from nemolaunch.cli.views.console import SafeConsole
from nemolaunch.cli.views.estimate import row
from nemolaunch.cli.views.live_run import signals_as_interrupts
from nemolaunch.cli.views.paint import write_parts
from nemolaunch.cli.views.sweep import print_findings, result_lines, steps_of
from nemolaunch.cli.views.units import count
from nemolaunch.cli.views.watch import say, say_done, short
from nemolaunch.errors import NemolaunchError
from nemolaunch.job import spec_of
from nemolaunch.system.quantities import counted


def plan_lines(search: Search) -> list[str]:
    """Return the plan of a search as lines."""
    plan = search.plan
    lines = [
        row("verdict", plan.verdict),
        row("search", f"{counted(search.trials, 'trial')} in {plan.folder}, drawn by {search.sampler}"),
    ]
    lines += [row("draws", f"{spec_of(name).flag} {values}") for name, values in search.space.items()]
    lines.append(row("planned", "the runs of the outermost values; each trial when it is drawn"))
    steps = dict.fromkeys(steps_of(run.plan) for run in plan.runs)
    lines.append(row("steps", f"{' to '.join(steps)} of each trial"))
    lines.append(row("tokens", f"at most {count(search.trials * max(run.tokens for run in plan.runs))}"))
    if plan.gpu_hours is not None:
        lines.append(
            row("cost", f"about {plan.gpu_hours / len(plan.runs) * search.trials:,.1f} GPU-hours in all")
        )
    return lines


def run(search: Search, hf_token: str | None, *, dry_run: bool, parallel: int) -> int:
    """Show a planned search and, unless it is a dry run, train its trials and show their results.

    Return the exit code: 0 if a trial has a result.

    Raises:
        NemolaunchError: the outermost runs have errors, or no trial has a result.
    """
    if dry_run:
        for line in plan_lines(search):
            write_parts([("", line)], indent=14)
    print_findings(search.plan)
    if search.plan.refused:
        raise NemolaunchError(search.plan.refusal)
    return 0 if dry_run else _launched(search, hf_token, parallel)


def _launched(search: Search, hf_token: str | None, parallel: int) -> int:
    console = SafeConsole()

    def tell(text: Any) -> None:
        say(console, str(text))

    try:
        with signals_as_interrupts():
            outcome = search.launch(parallel=parallel, hf_token=hf_token, tell=tell)
    except KeyboardInterrupt:
        say(console, "the same command continues")
        raise
    results = search.results()
    for line in result_lines(results):
        say(console, line)
    if results.best is None:
        failed = ", ".join(outcome.failed)
        raise NemolaunchError(
            f"no trial has a result; failed: {failed}" if failed else "no trial has a result"
        )
    say(console, f"best: {drawn(results.best.member.changes)}")
    say_done(console, f"page: {short(search.report())}")
    return 0
