"""`nemolaunch report`: an HTML report about runs, and the loss curve as an image."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded

EXAMPLE = "nemolaunch report runs/pretraining -o report.html --png loss.png"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch report`."""
    p = Parser(
        prog="nemolaunch report",
        description="Write an HTML report about a run, or a comparison of several runs. "
        "The report is a single file that needs no network.",
        example=EXAMPLE,
    )
    add = p.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="output file (default: report.html in the run folder)",
    )
    add(
        "--png",
        type=Path,
        metavar="FILE",
        help="also plot the loss curve; the suffix selects .png, .svg or .pdf",
    )
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Write the report. Return the exit code."""
    args = parser().parse_args(argv)
    from nemolaunch.observe.report.picture import draw_loss
    from nemolaunch.observe.report.report import default_output, write_report

    output = args.output or default_output(args.runs)
    pages = write_report(args.runs, output)
    print(output)
    if args.png:
        draw_loss(pages, args.png)
        print(args.png)
    return 0
