"""`nemolaunch doctor`: check what this machine has for training, what is wrong, and how to fix it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.waiting import Waiting
from nemolaunch.doctor.verdict import BAD, GOOD, NOTE, WARNING, Verdict
from nemolaunch.system.control_characters import escaped
from nemolaunch.system.quantities import counted

MARKS = {GOOD: ("✓", "green"), NOTE: ("·", "cyan"), WARNING: ("!", "yellow"), BAD: ("✗", "red")}
EXAMPLE = "nemolaunch doctor --output-dir /scratch/me/runs\nnemolaunch doctor --cluster mine"


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch doctor`."""
    p = Parser(
        prog="nemolaunch doctor",
        description="Check Python, packages, GPUs, network, disk, logins and Slurm; report problems and how to fix "
        "them. Exit code 1 if something will fail.",
        example=EXAMPLE,
    )
    add = p.add_argument
    add(
        "--output-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="folder that runs are written to; the speed of its disk is measured",
    )
    add(
        "--cluster",
        metavar="NAME",
        help="only check this cluster's profile, on the cluster: from here or over SSH",
    )
    add("--imports", action="store_true", help="also import the packages, which takes a minute")
    add("--no-logins", action="store_true", help="do not contact servers to check logins")
    add("--json", action="store_true", help="print JSON")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run all checks and print their results. Return the exit code."""
    args = parser().parse_args(argv)
    found: list[Verdict] = []
    for check in _checks(args):
        with Waiting("checking"):
            verdicts = list(check())
        found += verdicts
        if not args.json:
            _print(verdicts)
    if args.json:
        print(json.dumps([dataclasses.asdict(verdict) for verdict in found], indent=1, ensure_ascii=False))
    else:
        _print_summary(found)
    return 1 if any(verdict.level == BAD for verdict in found) else 0


def _checks(args: argparse.Namespace) -> Iterator[Callable[[], Iterable[Verdict]]]:
    if args.cluster:
        yield _cluster(args.cluster)
        return
    from nemolaunch.doctor import disk, gpus, host, logins, packages, slurm

    yield packages.look
    yield packages.bridge
    if args.imports:
        yield packages.imports
    yield from (gpus.look, host.look, host.network)
    yield lambda: disk.look(args.output_dir)
    if not args.no_logins:
        yield from (logins.hub, logins.wandb)
    yield slurm.look


def _cluster(name: str) -> Callable[[], Iterable[Verdict]]:
    from nemolaunch.cli.parsing.cluster_profile import read_profile
    from nemolaunch.doctor import cluster

    profile = read_profile(name)
    return lambda: cluster.look(profile.path, profile.values, profile.ssh, profile.ssh_python or "python3")


def _print(verdicts: Iterable[Verdict]) -> None:
    from rich.text import Text

    from nemolaunch.cli.views.console import SafeConsole

    console = SafeConsole(highlight=False)
    for verdict in verdicts:
        mark, colour = MARKS[verdict.level]
        line = Text.assemble((mark, colour), f" {verdict.part:<9} ", escaped(verdict.text))
        console.print(line, soft_wrap=True)
        if verdict.advice:
            console.print(Text.assemble(" " * 12, ("→ ", colour), escaped(verdict.advice)), soft_wrap=True)


def _print_summary(found: Iterable[Verdict]) -> None:
    levels = [verdict.level for verdict in found]
    bad, warnings = levels.count(BAD), levels.count(WARNING)
    if bad or warnings:
        print(f"\n{counted(bad, 'problem')}, {counted(warnings, 'warning')}")
    else:
        print("\nno problems found")
