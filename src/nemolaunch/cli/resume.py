"""`nemolaunch resume RUN`: go on with a run from its last checkpoint."""

from __future__ import annotations

import sys

from nemolaunch.cli import pretrain
from nemolaunch.cli.render import guarded
from nemolaunch.errors import UsageError

USAGE = """usage: nemolaunch resume RUN [flags of nemolaunch pretrain]

Go on with a run from its last checkpoint, as its saved plan says; flags given here win, such as
--max-steps or --time. The same as `nemolaunch pretrain --plan RUN --resume auto`."""


@guarded
def main(argv: list[str] | None = None) -> int:
    """Resume. Returns the exit code of the job."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if words[0].startswith("-"):
        raise UsageError("nemolaunch resume takes the run folder first: nemolaunch resume RUN [flags]")
    flags = list(words[1:])
    if "--resume" not in flags:
        flags += ["--resume", "auto"]
    return pretrain.main(["--plan", words[0], *flags], prog="nemolaunch resume")
