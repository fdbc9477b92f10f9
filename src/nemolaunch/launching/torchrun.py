"""A run with Megatron-Bridge on this machine: torchrun in the interpreter that has it.

    python -m nemolaunch.launching.torchrun PLAN.json

NeMo-Run takes no part: the environment of Megatron-Bridge may not have it. The output is the launcher's log, and the
exit code is 0 only if every rank succeeded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nemolaunch.launching.experiment import end_with_parent, local_variables
from nemolaunch.launching.torchrun_words import torchrun_words
from nemolaunch.planning import Plan
from nemolaunch.system.secret_values import mask_streams


def environment(plan: Plan) -> dict[str, str]:
    """Return the variables of torchrun and the ranks, which can import this package and no other from here."""
    paths = {"PYTHONPATH": str(plan.run.own_code)} if plan.python else {}
    return {**os.environ, **local_variables(plan), **paths}


def link_code(plan: Plan) -> None:
    """Link this package into the run folder. Its own parent folder may have the packages of another environment."""
    link = plan.run.own_code / "nemolaunch"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path(__file__).parents[1], target_is_directory=True)


def run(plan: Plan) -> int:
    """Run torchrun, and write its output without secrets. Return its exit code."""
    with subprocess.Popen(
        torchrun_words(plan),
        env=environment(plan),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as running:
        for line in running.stdout or ():
            print(line, end="", flush=True)
    return running.returncode


def main() -> int:
    """Return torchrun's exit code."""
    plan = Plan.load(Path(sys.argv[1]))
    if plan.is_private:
        os.umask(0o077)
    mask_streams()
    end_with_parent(plan)
    if plan.python:
        link_code(plan)
    return run(plan)


if __name__ == "__main__":
    sys.exit(main())
