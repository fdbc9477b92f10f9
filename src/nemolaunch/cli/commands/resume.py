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
    p.add_argument("run", metavar="RUN", help="run folder")
    flags = p.add_argument(
        "flags", nargs=argparse.REMAINDER, metavar="FLAGS", help="flags of nemolaunch pretrain"
    )
    flags.required = False  # otherwise argparse lists it as a missing argument
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Resume the run. Return the exit code of the job."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        raise UsageError(f"the run folder comes first: {PROG} RUN [flags]")
    args = parser().parse_args(words)
    names = {word.partition("=")[0] for word in args.flags}
    flags = args.flags if "--resume" in names else [*args.flags, "--resume", "auto"]
    if not names & {"--ssh", "--cluster"}:  # either may mean a run on another machine
        run_of(Path(args.run))
    return pretrain.main(["--plan", args.run, *flags], prog=PROG)
