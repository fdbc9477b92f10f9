"""Try random command lines, configurations and architectures, and count crashes.

    python benchmarks/checks/fuzz.py [--tries 10000] [--seed 1]

Makes the same number of tries for each kind of input: command lines of a job, command lines about layouts,
YAML files of a job, and YAML files of a model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from check_jobs import TOKENIZER
from fuzz_cli import (
    LAUNCH_COMMANDS,
    architectures,
    command_lines,
    configurations,
    furnish,
    layout_lines,
    survives,
    write,
)

DATA = ("--dataset-dir", "text_document", "--hf-model-id", TOKENIZER)
COMMANDS = st.sampled_from(LAUNCH_COMMANDS)


def main() -> int:
    """Run all tries and print the counts. Return 1 if anything crashed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tries", type=int, default=10_000, help="tries per kind of input")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    exits: Counter[str] = Counter()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        os.chdir(folder)
        os.environ["HOME"] = folder
        kinds = kinds_of_trial(Path(folder), exits)
        crashes = sum(not tried(trial, chosen.tries, chosen.seed) for trial in kinds)
    print(f"{sum(exits.values())} tries in {time.monotonic() - start:.0f} s, by exit code:")
    for kind, count in sorted(exits.items()):
        print(f"  {kind:<20}{count:>7}")
    print(f"kinds of input that crashed: {crashes} of {len(kinds)}")
    return 1 if crashes else 0


def kinds_of_trial(folder: Path, exits: Counter[str]) -> tuple[Callable[[], None], ...]:
    """Return one test per kind of input."""

    def run(words: list[str], command: str) -> None:
        exits[f"{command}: {survives(words, command)}"] += 1

    @given(words=command_lines(), command=COMMANDS)
    def line(words: list[str], command: str) -> None:
        run(words, command)

    @given(drawn=layout_lines())
    def layout(drawn: tuple[str, list[str]]) -> None:
        run(drawn[1], drawn[0])

    @given(text=configurations(), command=COMMANDS)
    def configuration(text: str, command: str) -> None:
        run(["--config", str(write(folder, text))], command)

    @given(text=architectures())
    def architecture(text: str) -> None:
        run(["-M", str(write(folder, text)), *DATA], "pretrain")

    return line, layout, configuration, architecture


def tried(trial: Callable[[], None], tries: int, start: int) -> bool:
    """Return whether no try crashed; the smallest one that does is printed."""
    quiet = settings(
        max_examples=tries, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    try:
        seed(start)(quiet(trial))()
    except Exception:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
