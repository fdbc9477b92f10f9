"""Measure the wall time from the command to the first step of a rehearsal, compared with importing NeMo alone.

    python benchmarks/first_step.py [--rounds 3] [--backend nemo2]

In each round: the bare import; a run that is started as usual; one that starts the process that `--keep-warm` keeps;
and one that is forked from it. With the seconds of each phase, as the runs themselves record them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
DOOR = str(ROOT / "train" / "llm" / "pretrain" / "pretrain_llm.py")
TOKENIZER = str(ROOT / "examples" / "tokenizer")
BRIDGE = ROOT / ".venv-bridge" / "bin" / "python"
BARE = {
    "nemo2": [sys.executable, "-W", "ignore", "-c", "from nemo.collections import llm"],
    "bridge": [
        str(BRIDGE), "-W", "ignore", "-c",
        "from nemolaunch.bridge import entry; entry.prepare('cpu'); import megatron.bridge.training.pretrain",
    ],
}  # fmt: skip
WARM = ["--keep-warm", "5"]


def tokenise(folder: str) -> None:
    """Tokenise the sample corpus into .bin/.idx."""
    words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", "sample"]
    words += ["--input-dir", str(ROOT / "examples" / "corpus"), "--output-dir", folder]
    subprocess.run(["bash", "preprocess_data.sh", *words], cwd=ROOT, check=True, capture_output=True)


def import_s(backend: str) -> float:
    """Return the seconds that a bare import takes."""
    began = time.time()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(BARE[backend], env=environment, check=True, capture_output=True)
    return time.time() - began


def run_phases(folder: Path, data: str, backend: str, more: list[str]) -> dict[str, float]:
    """Train for two steps. Return when each phase ended, in seconds after the command was started."""
    began = time.time()
    words = [sys.executable, DOOR, "-M", "nano", "--hf-model-id", TOKENIZER, "--dataset-dir", data]
    words += ["--seq-length", "64", "-gbs", "2", "-mbs", "1", "--precision", "fp32", "--max-steps", "2"]
    words += ["--lr", "1e-3", "--warmup-steps", "1", "--backend", backend, "--output-dir", str(folder), *more]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    rows = [json.loads(row) for row in (folder / "logs" / "phases.jsonl").read_text().splitlines()]
    first = next(
        row
        for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        if row["step"] == 1 and "loss" in row
    )
    begins = {"starting": began, **{row["text"]: row["time"] for row in rows if row["time"] < first["time"]}}
    ends = [*list(begins.values())[1:], first["time"]]
    return dict(zip(begins, (end - began for end in ends), strict=True))


def stop_servers(runtime: str) -> None:
    """End the processes that are kept warm with sockets in a folder."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and runtime.encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGTERM)


def main() -> None:
    """Measure, and print a table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--backend", choices=sorted(BARE), default="nemo2")
    given = arguments.parse_args()
    kinds = {"as usual": [], "first with --keep-warm": WARM, "second with --keep-warm": WARM}
    imports: list[float] = []
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        tokenise(f"{folder}/data")
        for number in range(given.rounds):
            imports.append(import_s(given.backend))
            for name, more in kinds.items():
                run = Path(folder) / f"run-{number}-{name.replace(' ', '-')}"
                found[name].append(run_phases(run, f"{folder}/data", given.backend, more))
            stop_servers(folder)
    bare = statistics.median(imports)
    table = Table(title=f"seconds until the first step, medians of {given.rounds}; bare import: {bare:.1f} s")
    for heading in ("run", "phases", "first step s", "x bare import"):
        table.add_column(heading, justify="left" if heading in ("run", "phases") else "right")
    for name, rounds in found.items():
        middle = sorted(rounds, key=lambda phases: list(phases.values())[-1])[len(rounds) // 2]
        begun, parts = 0.0, []
        for text, end in middle.items():
            parts.append(f"{text} {end - begun:.1f}")
            begun = end
        table.add_row(name, "\n".join(parts), f"{begun:.1f}", f"{begun / bare:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
