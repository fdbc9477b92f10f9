"""What `--ssh` has done on the cluster's login node: looks around, prepares the run folder, notes the job.

    python -m nemolaunch.launch.login_node look|prepare|submitted

takes JSON on its standard input and answers in JSON. It runs in the home folder there, from a copy of this
package, with nothing but Python.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.facts import look
from nemolaunch.job import Job
from nemolaunch.launch import local
from nemolaunch.observe import slurm_run
from nemolaunch.planning import Plan
from nemolaunch.system.plain_values import to_plain


def _look(values: dict[str, Any]) -> Any:
    """Values of a job → facts."""
    return to_plain(look(Job().with_values(**values)))


def _prepare(sent: dict[str, Any]) -> Any:
    """A plan, and a tokenizer's files where the plan has none → the plan's values as they now are.

    Nothing is done where the run has finished already; `finished` is then its last step.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.json")
        file.write_text(json.dumps(sent["plan"]))
        plan = Plan.load(file)
        for name, content in sent["tokenizer"].items():
            Path(folder, name).write_bytes(base64.b64decode(content))
        if plan.tokenizer is None:
            plan = replace(plan, tokenizer=folder)
        finished = local.finished_step(plan)
        if finished is not None:
            return {"finished": finished}
        with slurm_run.claimed(plan):
            plan = slurm_run.from_scratch(plan)
            local.prepare(plan)
            slurm_run.fresh_start(plan)
    return {"finished": None, "values": plan.values}


def _submitted(sent: dict[str, Any]) -> Any:
    """A run folder, the id of its job and what was said on the way."""
    plan = Plan.load(Path(sent["folder"], "plan.json"))
    slurm_run.note_submission(plan, sent["job"], sent["log"])
    return None


COMMANDS = {"look": _look, "prepare": _prepare, "submitted": _submitted}


def main() -> int:
    try:
        print(json.dumps(COMMANDS[sys.argv[1]](json.load(sys.stdin))))
    except NemolaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
