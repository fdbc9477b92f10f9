"""Measure the wall time of `pretrain_llm.py --help` and `--dry-run`, compared with importing NeMo alone.

    python benchmarks/startup.py [--runs 20] [--imports 3]

The commands take turns, so that other load on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
DOOR = str(ROOT / "train" / "llm" / "pretrain" / "pretrain_llm.py")
TOKENIZER = str(ROOT / "examples" / "tokenizer")
IMPORT = "python -c 'import nemo.collections.llm'"


def commands(folder: str) -> dict[str, list[str]]:
    """Return the commands to time, by their names in the table."""
    job = ["-M", "llama3_8b", "--dataset-dir", folder, "--hf-model-id", TOKENIZER, "--seq-length", "2048"]
    job += ["-N", "2", "-G", "8", "-TP", "2", "-SP", "-gbs", "64", "--executor", "slurm", "--dry-run"]
    return {
        "pretrain_llm.py --help": [sys.executable, DOOR, "--help"],
        "pretrain_llm.py --dry-run": [sys.executable, DOOR, *job],
        IMPORT: [sys.executable, "-W", "ignore", "-c", "import nemo.collections.llm"],
    }


def tokenise(folder: str) -> None:
    """Tokenise the sample corpus into .bin/.idx, as data for the dry run."""
    words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", "sample"]
    words += ["--input-dir", str(ROOT / "examples" / "corpus"), "--output-dir", folder]
    subprocess.run(["bash", "preprocess_data.sh", *words], cwd=ROOT, check=True, capture_output=True)


def wall_s(command: list[str]) -> float:
    """Return the seconds a command takes. Raises CalledProcessError if it fails."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print a table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--runs", type=int, default=20, help="runs of --help and of --dry-run")
    arguments.add_argument("--imports", type=int, default=3, help="imports of NeMo")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokenise(folder)
        timed = commands(folder)
        times: dict[str, list[float]] = {name: [] for name in timed}
        for command in timed.values():
            wall_s(command)  # brings the files into the page cache
        for run in range(given.runs):
            for name, command in timed.items():
                if name != IMPORT or run * given.imports // given.runs == len(times[name]):
                    times[name].append(wall_s(command))
    table = Table(title="start-up, wall time")
    for heading in ("command", "runs", "min s", "median s", "share of the import"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    whole = statistics.median(times[IMPORT])
    for name, found in times.items():
        middle = statistics.median(found)
        table.add_row(name, str(len(found)), f"{min(found):.3f}", f"{middle:.3f}", f"1/{whole / middle:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
