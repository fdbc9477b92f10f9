"""The part of `--ssh` that runs on the login node: gather facts, prepare the run folder, record the job.

    python -m nemolaunch.launching.login_node look|prepare|submitted

reads JSON from standard input and prints JSON. It runs in the user's home folder, from a copy of this package, and
needs only Python.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.facts import look
from nemolaunch.job import Job
from nemolaunch.launching.prepare import finished_step, prepare
from nemolaunch.planning import Plan
from nemolaunch.slurm import submission
from nemolaunch.system.plain_values import to_plain


def _look(values: dict[str, Any]) -> Any:
    """Return the facts for a job's values."""
    return to_plain(look(Job().with_values(**values)))


def _prepare(sent: dict[str, Any]) -> Any:
    """Prepare the run folder for a plan, with the tokenizer files sent along if they are not on the cluster.

    If the run has already finished, nothing is done and `finished` is its last step. `told` holds messages for the
    user.
    """
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.json")
        file.write_text(json.dumps(sent["plan"]))
        plan = Plan.load(file)
        finished = finished_step(plan)
        if finished is None:
            for name, content in sent["tokenizer"].items():
                Path(folder, name).write_bytes(base64.b64decode(content))
            with submission.claimed(plan, told.append):
                prepare(plan, tokenizer=Path(folder))
                submission.start_over(plan)
    return {"finished": finished, "told": told}


def _submitted(sent: dict[str, Any]) -> Any:
    """Record the job's id and the output of the submission in a run folder."""
    plan = Plan.load(Path(sent["folder"], "plan.json"))
    submission.note_submission(plan, sent["job"], sent["log"])
    return None


COMMANDS = {"look": _look, "prepare": _prepare, "submitted": _submitted}


def main() -> int:
    """Run one of the commands. Return the exit code."""
    try:
        print(json.dumps(COMMANDS[sys.argv[1]](json.load(sys.stdin))))
    except NemolaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
