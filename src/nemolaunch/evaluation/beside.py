"""Samples and benchmarks beside a run: `python -m nemolaunch.evaluation.beside PLAN.json`, started with the training.

The process ends after the last checkpoint has been evaluated, or with the command that started it. It leaves the GPUs
to the training. Its priority on the CPU is that of the training: with a lower one, a rehearsal would not let it have
any time, and checkpoints would be gone before it gets to them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from nemolaunch.evaluation.watch import EvaluationRequest, watch
from nemolaunch.planning import Plan
from nemolaunch.ranks import phases
from nemolaunch.ranks.log import log
from nemolaunch.run.folder import end_step
from nemolaunch.system import processes
from nemolaunch.system.secret_values import mask_streams

POLL_S = 2.0


def request_at(plan: Plan, step: int) -> EvaluationRequest | None:
    """Return what is evaluated of the checkpoint after a step: the last step counts as a multiple of everything."""
    logging = plan.job.logging
    is_last = end_step(plan.run, plan.max_steps) == step or step == plan.max_steps
    trust = ["--trust-remote-code"] if plan.job.model.trust_remote_code else []
    samples = logging.sample_every is not None and (is_last or step % logging.sample_every == 0)
    scores = logging.eval_every is not None and (is_last or step % logging.eval_every == 0)
    if not (samples or scores):
        return None
    folder = [f"--include-path={logging.eval_include_path}"] if logging.eval_include_path else []
    return EvaluationRequest(
        lm=[f"--tasks={logging.eval_tasks}", *folder, *trust] if scores else None,
        generate=[*(f"--prompt={prompt}" for prompt in logging.sample_prompt), "--seed=1", *trust]
        if samples
        else None,
        trust_remote_code=plan.job.model.trust_remote_code,
    )


def main() -> None:
    """Evaluate the checkpoints of the run until it has finished."""
    plan = Plan.load(Path(sys.argv[1]))
    processes.signal_on_parents_death(signal.SIGTERM)
    mask_streams()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def is_over() -> bool:
        return end_step(plan.run, plan.max_steps) is not None

    def say(text: str) -> None:
        if is_over():
            phases.begin(plan.run, text)  # the command that trains waits for this, and shows it
        else:
            log.info(text)

    for row in watch(plan.run, lambda step: request_at(plan, step), is_over=is_over, poll_s=POLL_S, say=say):
        say(f"evaluated step {row['step']}")


if __name__ == "__main__":
    main()
