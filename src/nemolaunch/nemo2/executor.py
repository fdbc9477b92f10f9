"""Plan → NeMo-Run experiment. Runs in a process of its own, whose output is the launcher's log.

    python -m nemolaunch.nemo2.executor PLAN.json

ends when the job has ended, with exit code 0 only if every rank succeeded: NeMo-Run itself reports success
either way.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from nemolaunch.plan import Plan

TASK = "pretrain"


def local_executor(plan: Plan) -> Any:
    """torchrun on this machine, one process per GPU (or CPU process of a rehearsal)."""
    import nemo_run as run

    return run.LocalExecutor(
        ntasks_per_node=plan.values["num_gpus"],
        launcher="torchrun",
        env_vars={name: os.environ.get(name, value) for name, value in plan.environment.items()},
    )


def run_experiment(plan: Plan) -> bool:
    """Run the plan through NeMo-Run and wait. Returns whether it succeeded."""
    os.environ["NEMORUN_HOME"] = str(plan.run.nemo_run)  # read when nemo_run is imported
    import nemo_run as run

    from nemolaunch.nemo2.entry import pretrain

    with run.Experiment(plan.values["experiment"], executor=local_executor(plan)) as experiment:
        experiment.add(run.Partial(pretrain, plan_file=str(plan.run.plan)), name=TASK)
        experiment.run(tail_logs=False, detach=False)
    # only leaving the block waits for the job
    states = [str(getattr(job.state, "name", job.state)) for job in experiment.jobs]
    print("the job ended as", ", ".join(states), flush=True)
    return bool(states) and all(state == "SUCCEEDED" for state in states)


def main() -> int:
    """Exit code 0 when the job succeeded."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)  # unwinds through NeMo-Run, which ends torchrun

    signal.signal(signal.SIGTERM, stop)
    plan = Plan.load(Path(sys.argv[1]))
    # torchrun and the interpreter of this environment, whatever the user's PATH
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    return 0 if run_experiment(plan) else 1


if __name__ == "__main__":
    sys.exit(main())
