"""`nemolaunch resume RUN`: continue a run from its last checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nemolaunch.cli.commands import pretrain
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import UsageError
from nemolaunch.observe.status import run_of
from nemolaunch.run.folder import RunDir
from nemolaunch.run.uploads import fetch
from nemolaunch.system import remote

PROG = "nemolaunch resume"


def parser() -> argparse.ArgumentParser:
    """Return the parser: the run folder, followed by flags of `nemolaunch pretrain`."""
    p = Parser(
        prog=PROG,
        usage="%(prog)s RUN [flags of nemolaunch pretrain]",
        example="nemolaunch resume runs/pretraining --max-steps 20000",
        description="Continue a run from its last checkpoint, with its saved plan. Flags such as --max-steps or --time "
        "override the plan. Short for `nemolaunch pretrain --plan RUN --resume auto`. Shows the run until it is over, "
        "even if it was submitted with --detach; add --detach again to return at once.",
    )
    p.add_argument(
        "run",
        metavar="RUN",
        help="run folder, or the URL of one that was uploaded",
    )
    flags = p.add_argument(
        "flags", nargs=argparse.REMAINDER, metavar="FLAGS", help="flags of nemolaunch pretrain"
    )
    flags.required = False  # otherwise argparse lists it as a missing argument
    return p


def _fetched(url: str) -> Path:
    """Fetch a run from an object store into runs/NAME, unless it is there. Return the folder."""
    folder = Path("runs", url.rstrip("/").rpartition("/")[2])
    remote.require_library(url)
    if RunDir(folder).plan.exists():
        raise UsageError(
            f"{folder} exists already: resume it with `{PROG} {folder}`, or move it aside to fetch {url}"
        )
    return fetch(url, folder, lambda text: print(text, file=sys.stderr)).root


@guarded
def main(argv: list[str] | None = None) -> int:
    """Resume the run. Return the exit code of the job."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        raise UsageError(f"the run folder comes first: {PROG} RUN [flags]")
    args = parser().parse_args(words)
    names = {word.partition("=")[0] for word in args.flags}
    if remote.is_url(args.run):
        args.run = str(_fetched(args.run))
    flags = args.flags if "--resume" in names else [*args.flags, "--resume", "auto"]
    if not names & {"--ssh", "--cluster"}:  # either may mean a run on another machine
        run_of(Path(args.run))
    return pretrain.main(["--plan", args.run, *flags], prog=PROG)
