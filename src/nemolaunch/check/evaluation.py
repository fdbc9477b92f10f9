"""Samples and benchmarks during training: what they need, and where they are possible."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from nemolaunch.check.support import error, fix, flag, shown
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved

# the steps between, and what is done with the checkpoints of these steps
PAIRS = (("sample_every", "sample_prompt"), ("eval_every", "eval_tasks"))


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that what is asked for is complete, has checkpoints, and can be started by this machine."""
    logging = resolved.job.logging
    yield from _incomplete(resolved)
    every = [name for name, _ in PAIRS if getattr(logging, name) is not None]
    if not every:
        return
    flags = " and ".join(map(flag, every))
    if resolved.job.launch.executor != "local":
        yield error(
            "evaluation-elsewhere",
            f"{flags} evaluate beside a run that this command trains, not with --executor "
            f"{resolved.job.launch.executor}; where the run folder is, `{_watch_command(resolved)}` does the same",
            _off(),
        )
    if resolved.job.objective.objective == "mlm":
        yield error(
            "evaluation-of-masked",
            f"{flags} need a causal model, and --objective mlm trains another; `nemolaunch eval watch RUN --data FILE` "
            "evaluates its checkpoints",
            _off(),
        )
    yield from _checkpoints(resolved, every)


def _off() -> Fix:
    return fix(sample_every=None, sample_prompt=(), eval_every=None, eval_tasks=None)


def _incomplete(resolved: Resolved) -> Iterator[Finding]:
    logging = resolved.job.logging
    for steps, what in PAIRS:
        if (getattr(logging, steps) is not None) != bool(getattr(logging, what)):
            given, missing = (steps, what) if getattr(logging, steps) is not None else (what, steps)
            drop = fix(**{given: () if given == "sample_prompt" else None})
            yield error("evaluation-incomplete", f"{flag(given)} needs {flag(missing)}, too", drop)
    if logging.eval_include_path is not None and not logging.eval_tasks:
        yield error(
            "evaluation-incomplete",
            f"{flag('eval_include_path')} needs {flag('eval_tasks')}, too",
            fix(eval_include_path=None),
        )


def _checkpoints(resolved: Resolved, every: list[str]) -> Iterator[Finding]:
    steps = {name: getattr(resolved.job.logging, name) for name in every}
    between = resolved.job.checkpoint.checkpoint_every
    if any(value < 1 for value in steps.values()) or (between is not None and between < 1):
        return  # `ranges` reports that
    wanted = math.gcd(*steps.values())
    words = " and ".join(shown(name, value) for name, value in steps.items())
    if between is None:
        yield error(
            "evaluation-without-checkpoint",
            f"{words} evaluates checkpoints, which without {flag('checkpoint_every')} are saved at no certain step",
            fix(checkpoint_every=wanted),
        )
    elif any(value % between for value in steps.values()):
        up = {name: math.ceil(value / between) * between for name, value in steps.items()}
        yield error(
            "evaluation-without-checkpoint",
            f"{words} is not a multiple of {shown('checkpoint_every', between)}",
            fix(**up),
            fix(checkpoint_every=math.gcd(wanted, between)),
        )


def _watch_command(resolved: Resolved) -> str:
    logging = resolved.job.logging
    folder = resolved.job.launch.output_dir or f"runs/{resolved.job.launch.experiment}"
    words = ["nemolaunch", "eval", "watch", folder]
    for prompt in logging.sample_prompt:
        words += ["--prompt", prompt]
    words += ["--tasks", logging.eval_tasks] if logging.eval_tasks else []
    words += ["--include-path", logging.eval_include_path] if logging.eval_include_path else []
    return shlex.join(words)
