"""`nemolaunch status`: the status of a run, or of all runs in a folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.run_argument import run_command, run_parser
from nemolaunch.cli.views.paint import write_parts
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.unfinished_data import UnfinishedData
from nemolaunch.observe import tokenising
from nemolaunch.observe.diagnosis import newest_failure
from nemolaunch.observe.goodput import goodput
from nemolaunch.observe.reader import read_history
from nemolaunch.observe.status import Status, runs_below, status, statuses
from nemolaunch.observe.units import count, duration, losses_of_sets
from nemolaunch.preflight import result as preflight
from nemolaunch.run.folder import RunDir
from nemolaunch.run.labels import labels_of
from nemolaunch.sweeps.folder import is_sweep, sweeps_below
from nemolaunch.sweeps.results import results_of, summary

# Exit code by state, so that a script can wait for a run
OVER_BADLY = ("stopped", "failed", "ended", "blocked")
UNKNOWN_CODE = 3
LONGEST_DETAIL = 80
TITLE = 13  # columns of the titles of lines about one run
MAY_BE_MISSING = ("VAL LOSS", "LEFT", "TAGS", "DETAIL")  # columns that are dropped where no run has a value


def _order(
    value: Callable[[Status], float | None], *, highest_first: bool = False
) -> Callable[[Status], Any]:
    """Return a key of sorting by a value, with runs that have none at the end."""

    def key(s: Status) -> tuple[bool, float]:
        found = value(s)
        return found is None, (-found if highest_first else found) if found is not None else 0.0

    return key


ORDERS: dict[str, Callable[[Status], Any]] = {
    "name": lambda s: s.folder.name,
    "state": lambda s: s.state,
    "step": _order(lambda s: s.step, highest_first=True),
    "loss": _order(lambda s: s.loss),
    "val-loss": _order(lambda s: s.val_loss),
    "tokens": _order(lambda s: s.tokens, highest_first=True),
    "speed": _order(lambda s: s.tokens_per_s, highest_first=True),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch status`."""
    p = run_parser(
        "nemolaunch status",
        example="nemolaunch status --sort val-loss\nnemolaunch status runs/pretraining --json",
        description="Show the status of a run: queue, step, loss, speed, time left, restarts, last checkpoint. "
        "Of a folder that nemolaunch tokenize is writing: how much is done. "
        "Exit code: 1 if RUN ended without finishing, 3 if Slurm cannot be reached, else 0.",
        required=False,
    )
    p.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="folder to list")
    p.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="TEXT",
        help="list only runs with this text in their name, model, state or tags, in any case; repeatable, all must "
        "occur",
    )
    p.add_argument(
        "--sort",
        choices=ORDERS,
        help="order of the list; loss and val-loss: lowest first; step, tokens and speed: highest first "
        "(default: newest first)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object per run")
    return p


def _status(args: argparse.Namespace) -> int:
    if args.run and (filling := tokenising.filled(args.run)):
        return _tokenising(filling, args.json)
    if args.run and is_sweep(args.run):
        return _sweep(args.run, args.json)
    found, problems = ([status(args.run)], []) if args.run else statuses(runs_below(args.runs_dir))
    if not args.run:
        found = _listed(found, args.filter, args.sort)
    for problem in problems:
        print(problem, file=sys.stderr)
    if args.json:
        for one in found:
            values = {**dataclasses.asdict(one), "folder": str(one.folder)}
            if args.run:  # of a list, it would take reading all metrics of all runs
                spent = goodput(read_history(one.folder))
                values["goodput"] = spent.values() if spent else None
            print(json.dumps(values, ensure_ascii=False))
    elif args.run:
        for line in [*_block(found[0]), *_failure_lines(found[0])]:
            write_parts([("", line)], indent=TITLE)
    else:
        none = f"no runs in {args.runs_dir}" + (f" with {', '.join(args.filter)}" if args.filter else "")
        sweeps = [] if args.filter else _sweeps(args.runs_dir)
        print("\n".join([*_table(found), *sweeps]) or none)
    if any(one.state == "unknown" for one in found):
        return UNKNOWN_CODE
    return 1 if args.run and found[0].state in OVER_BADLY else 0


def _sweep(folder: Path, as_json: bool) -> int:
    """Print the runs of a sweep, best first. Return 1 if one ended without finishing."""
    from nemolaunch.cli.views.sweep import result_lines

    results = results_of(folder)
    if as_json:
        for run in results.runs:
            print(json.dumps({**dataclasses.asdict(run), "name": run.name}, ensure_ascii=False))
    else:
        print("\n".join(result_lines(results)))
    return 1 if any(run.state in OVER_BADLY for run in results.runs) else 0


def _sweeps(folder: Path) -> list[str]:
    """Return a line for each sweep in a folder."""
    lines = []
    for path in sweeps_below(folder):
        try:
            results = results_of(path)
            lines.append(f"{results.record.kind} {path.name}: {summary(results)}")
        except NemolaunchError as error:
            lines.append(str(error))
    return lines


def _listed(found: list[Status], words: list[str], order: str | None) -> list[Status]:
    """Return the runs that contain all of these words, in that order; those without a value come last."""
    kept = [s for s in found if all(word.lower() in _searched(s) for word in words)]
    return sorted(kept, key=ORDERS[order]) if order else kept


def _searched(s: Status) -> str:
    return " ".join([s.folder.name, s.model, s.state, *s.tags]).lower()


def _tokenising(found: tuple[UnfinishedData, ...], as_json: bool) -> int:
    """Print how far runs of `nemolaunch tokenize` are. Return 1 if one was interrupted."""
    for one in found:
        if as_json:
            print(json.dumps(dataclasses.asdict(one), ensure_ascii=False))
        else:
            print(f"{'tokenising' if one.goes_on else 'interrupted'}: {one}")
            print("".join(f"  {line}\n" for line in _of_jobs(one)), end="")
    return 0 if all(one.goes_on for one in found) else 1


def _of_jobs(one: UnfinishedData) -> list[str]:
    """Return lines about the Slurm jobs of a run of `nemolaunch tokenize`; none if it has none."""
    if one.jobs is None:
        return []
    failed = len(tokenising.failures(one))
    why = [f"{failed} failed: `nemolaunch diagnose {Path(one.folder).parent}` says why"] if failed else []
    again = [] if one.goes_on else ["run the same command again to continue"]
    return [str(one.jobs), *why, *again]


def _block(s: Status) -> list[str]:
    """Return the lines about one run."""
    rows = [
        ("run", f"{s.folder} ({s.model})"),
        ("state", s.state + (f": {s.detail}" if s.detail else "") + (f" (job {s.job})" if s.job else "")),
        ("step", f"{s.step:,} of {s.max_steps:,}" + (f", {duration(s.quiet_s)} ago" if s.quiet_s else "")),
    ]
    if s.loss is not None:
        rows.append(("loss", f"{s.loss:.3f}"))
    if s.val_loss is not None:
        rows.append(("validation", losses_of_sets(s.val_losses) or f"{s.val_loss:.3f}"))
    if s.tokens_per_s:
        rows.append(("speed", f"{count(s.tokens_per_s)} tokens/s"))
    if s.eta_s is not None:
        rows.append(("left", duration(s.eta_s)))
    if spent := goodput(read_history(s.folder)):
        rows.append(("goodput", spent.sentence))
    if s.tags:
        rows.append(("tags", ", ".join(s.tags)))
    rows += [("note", note.text) for note in labels_of(RunDir(s.folder)).notes]
    rows.append(("restarts", str(s.restarts)))
    rows.append(("checkpoint", f"after step {s.checkpoint_step:,}" if s.checkpoint_step else "none yet"))
    if measured := preflight.load(RunDir(s.folder)):
        rows.append(("preflight", measured.sentence))
    rows += [("warnings" if i == 0 else "", notice) for i, notice in enumerate(s.notices)]
    return [f"{name:<{TITLE}}{value}" for name, value in rows]


def _failure_lines(s: Status) -> list[str]:
    """Return a line about the last failure of a run on Slurm that was restarted after it."""
    if not s.restarts or s.state not in ("running", "waiting", "finished"):
        return []
    found = newest_failure(RunDir(s.folder), alive=s.state != "waiting")
    if found is None:
        return []
    cause = f" [{found.cause.code}]" if found.cause else ""
    where = f" on {found.node}" if found.node else ""
    return [f"{'last failure':<{TITLE}}{found.what}{where}{cause}"]


def _table(found: list[Status]) -> list[str]:
    """Return a table with one line per run."""
    header = ("RUN", "STATE", "STEP", "LOSS", "VAL LOSS", "TOKENS/S", "LEFT", "RESTARTS", "TAGS", "DETAIL")
    rows = [
        (
            s.folder.name,
            s.state,
            f"{s.step}/{s.max_steps}",
            "" if s.loss is None else f"{s.loss:.3f}",
            "" if s.val_loss is None else f"{s.val_loss:.3f}",
            count(s.tokens_per_s) if s.tokens_per_s else "",
            "" if s.eta_s is None else duration(s.eta_s),
            str(s.restarts),
            ",".join(s.tags),
            s.detail if len(s.detail) <= LONGEST_DETAIL else s.detail[: LONGEST_DETAIL - 1] + "…",
        )
        for s in found
    ]
    if not rows:
        return []
    shown = [i for i, name in enumerate(header) if name not in MAY_BE_MISSING or any(row[i] for row in rows)]
    widths = {i: max(len(row[i]) for row in (header, *rows)) for i in shown}
    return ["  ".join(row[i].ljust(widths[i]) for i in shown).rstrip() for row in (header, *rows)]


main = run_command(parser, _status)
