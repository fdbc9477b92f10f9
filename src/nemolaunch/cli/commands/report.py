"""`nemolaunch report`: an HTML report about runs, and the loss curve as an image."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError
from nemolaunch.sweeps.folder import is_sweep

EXAMPLE = "nemolaunch report runs/pretraining -o report.html --png loss.png\nnemolaunch report runs/pretraining --serve"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch report`."""
    p = Parser(
        prog="nemolaunch report",
        description="Write an HTML report about a run, or a comparison of several runs. "
        "The report is a single file that needs no network. With --serve, it is a page that follows the runs.",
        example=EXAMPLE,
    )
    add = p.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or the folder of one sweep")
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
    add(
        "--json",
        action="store_true",
        help="print the report's values as one JSON object per run; the page is then only written with -o",
    )
    add(
        "--serve",
        action="store_true",
        help="serve a live page instead of writing a file; Ctrl-C stops it",
    )
    add(
        "--host",
        metavar="ADDRESS",
        help="address to serve on; other than this machine's loopback, it needs a token in "
        "NEMOLAUNCH_REPORT_TOKEN, which is the password of the page (default: 127.0.0.1)",
    )
    add("--port", type=int, metavar="N", help="port to serve on (default: the first free one from 8050)")
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Write the report. Return the exit code."""
    args = parser().parse_args(argv)
    if any(map(is_sweep, args.runs)):
        return _sweep_page(args)
    if args.serve:
        return _serve(args)
    if args.host is not None or args.port is not None:
        raise UsageError("--host and --port are for --serve")
    if args.json:
        _print_values(args.runs)
        if not (args.output or args.png):
            return 0
    from nemolaunch.observe.report.picture import draw_loss
    from nemolaunch.observe.report.report import default_output, write_report

    output = args.output or default_output(args.runs)
    pages = write_report(args.runs, output)
    written = [output]
    if args.png:
        draw_loss(pages, args.png)
        written.append(args.png)
    print(*written, sep="\n", file=sys.stderr if args.json else sys.stdout)
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Serve the report until Ctrl-C. Return the exit code."""
    if args.output or args.png or args.json:
        raise UsageError("--serve writes no files: drop -o, --png and --json")
    from nemolaunch.cli.commands.tensorboard import ssh_line
    from nemolaunch.observe.report.server import is_loopback, server_of

    server = server_of(args.runs, args.host or "127.0.0.1", args.port)
    host, port = args.host or "127.0.0.1", server.server_port
    shown = f"[{host}]" if ":" in host else host
    print(f"report: http://{shown}:{port}/")
    if server.token is not None:
        print("password: the value of NEMOLAUNCH_REPORT_TOKEN, with any user name")
    if is_loopback(host):
        print(f"on your own machine: {ssh_line(port)}")
    sys.stdout.flush()
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def _sweep_page(args: argparse.Namespace) -> int:
    """Write the page of a sweep. Return the exit code."""
    from nemolaunch.sweeps.page import write_page

    if len(args.runs) > 1 or args.png or args.json or args.serve:
        raise UsageError(
            f"{next(filter(is_sweep, args.runs))} is a sweep: its page takes it alone, and only -o"
        )
    print(write_page(args.runs[0], args.output))
    return 0


def _print_values(folders: list[Path]) -> None:
    from nemolaunch.observe.results import report_values
    from nemolaunch.observe.status import run_of

    for folder in folders:
        print(json.dumps(report_values(run_of(folder)), ensure_ascii=False))
