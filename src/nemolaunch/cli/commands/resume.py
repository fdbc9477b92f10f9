"""`nemolaunch resume RUN`: go on with a run from its last checkpoint."""

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
    """The run folder; the flags after it are those of `nemolaunch pretrain`."""
    p = Parser(
        prog=PROG,
        usage="%(prog)s RUN [flags of nemolaunch pretrain]",
        example="nemolaunch resume runs/pretraining --max-steps 20000",
        description="Go on with a run from its last checkpoint, as its saved plan says; flags given here win, such "
        "as --max-steps or --time. The same as `nemolaunch pretrain --plan RUN --resume auto`. It shows the run until "
        "it is over, also one that was submitted with --detach, unless that is given again.",
    )
    p.add_argument("run", metavar="RUN", help="run folder")
    flags = p.add_argument(
        "flags", nargs=argparse.REMAINDER, metavar="FLAGS", help="flags of nemolaunch pretrain"
    )
    flags.required = False  # else argparse names it among what is missing
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Resume. Returns the exit code of the job."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        raise UsageError(f"{PROG} takes the run folder first: {PROG} RUN [flags]")
    args = parser().parse_args(words)
    flags = args.flags if "--resume" in args.flags else [*args.flags, "--resume", "auto"]
    if not any(word.partition("=")[0] == "--ssh" for word in args.flags):
        run_of(Path(args.run))
    return pretrain.main(["--plan", args.run, *flags], prog=PROG)
