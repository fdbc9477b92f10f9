"""How results and errors look on the terminal."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nemolaunch.errors import NemolaunchError
from nemolaunch.findings import Finding, by_severity
from nemolaunch.job import Job

if TYPE_CHECKING:
    from nemolaunch.plan import Plan


def guarded(main: Callable[[list[str] | None], int]) -> Callable[[list[str] | None], int]:
    """Turn a user's mistake into one message on stderr and an exit code, never a traceback.

    Exit codes: the error's own (1 or 2); 130 after Ctrl-C; 141 when the reader of a pipe has gone.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except NemolaunchError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141

    return run


def print_findings(findings: Iterable[Finding]) -> None:
    """All findings on stderr, most severe first."""
    for finding in by_severity(findings):
        print(finding, file=sys.stderr)


def print_plan(plan: Plan, asked: Job) -> None:
    """The resolved plan on stdout: every value that is not a plain default, and where it came from."""
    print(f"{plan.model} ({plan.model_source}), compiled from recipe {plan.recipe}")
    print(f"on {'this CPU, as a rehearsal' if plan.device == 'cpu' else 'GPU'}: {plan.world_size} process(es), "
          f"data parallel size {plan.data_parallel_size}")
    print(f"run folder {plan.folder}")
    print(f"tokenizer {plan.tokenizer or plan.values['hf_model_id']}")
    for weight, prefix in plan.blend:
        print(f"data {prefix}" + (f" (weight {weight:g})" if weight is not None else ""))
    print(f"{plan.epoch_samples:,} samples an epoch; {plan.tokens_per_step:,} tokens a step")
    defaults = Job().values()
    given = asked.values()
    for name, value in plan.values.items():
        if value != defaults[name]:
            origin = plan.origins.get(name) or ("given" if given[name] == value else "")
            print(f"  --{name.replace('_', '-'):<40} {_word(value):<20} {origin}")
    for sentence in plan.left_out:
        print(f"left out on the CPU: {sentence}")


def _word(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
