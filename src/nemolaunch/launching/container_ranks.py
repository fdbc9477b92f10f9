"""The first process of a run's container: starts the ranks with torchrun, and asks them to exit when it is.

    python -m nemolaunch.launching.container_ranks PLAN.json

reads environment variables as JSON from standard input. SIGTERM goes to the ranks alone, which save together and exit:
torchrun would end them within half a minute, whether they have saved or not. The exit code is torchrun's.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from nemolaunch.launching.torchrun_words import torchrun_words
from nemolaunch.planning import Plan
from nemolaunch.system import processes


def main() -> int:
    """Run the ranks to their end. Return the exit code."""
    plan = Plan.load(Path(sys.argv[1]))
    os.environ.update(json.loads(sys.stdin.read() or "{}"))
    # otherwise ranks connect to the machine's host name, and hang if it does not resolve
    os.environ.setdefault("PET_LOCAL_ADDR", "127.0.0.1")
    # an engine that may not raise limits leaves the user's
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    running = subprocess.Popen(torchrun_words(plan), stdin=subprocess.DEVNULL)

    def ask_ranks(number: int, frame: FrameType | None) -> None:
        ranks = processes.first_with(plan.run.root, processes.OF_TORCHRUN)
        processes.terminate(ranks or [running.pid])

    signal.signal(signal.SIGTERM, ask_ranks)
    code = running.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
