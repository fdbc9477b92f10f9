"""Compare conversions with copying the same bytes, and with the framework's own converters: time and peak memory.

    python compare.py --folder /tmp/bench --size 8b                 # compared with cp
    python compare.py --folder /tmp/bench --size 1b --peer          # and with llm.import_ckpt/export_ckpt
    python compare.py --folder /tmp/bench --size 1b --to bridge --peer   # AutoBridge, in .venv-bridge

Needs about twice the model's size on disk (8b: 33 GB), with `--to bridge` three times. Every command is a separate
process that starts with none of its input in the page cache; its time ends when the output is on the disk. Memory is
the peak resident set size of the process, which includes file pages.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SIZES = ("8b", "1b", "250m")
NEMOLAUNCH = [sys.executable, "-m", "nemolaunch.cli.main", "convert"]
BRIDGE = str(HERE.parents[1] / ".venv-bridge" / "bin" / "python")
# Format -> the framework's converter, the interpreter that has it, and the script that runs it
WORKERS = {
    "nemo2": ("NeMo", sys.executable, "nemo_convert.py"),
    "bridge": ("AutoBridge", BRIDGE, "bridge_convert.py"),
}
QUIET = {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}


@dataclass
class Run:
    """One run of one command."""

    seconds: float
    peak_bytes: int


def measure(command: list[str], source: Path, output: Path) -> Run:
    """Measure a command that turns `source` into `output`, from disk to disk."""
    shutil.rmtree(output, ignore_errors=True)
    forget(source)
    before = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **QUIET}
    )
    assert process.stdout is not None
    text = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    flush(output)
    seconds = time.perf_counter() - before
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return Run(seconds, usage.ru_maxrss * 1024)


def files(path: Path) -> list[Path]:
    """Return all files in a folder."""
    return [file for file in path.rglob("*") if file.is_file()]


def forget(path: Path) -> None:
    """Drop a folder's files from the page cache."""
    for file in files(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def flush(path: Path) -> None:
    """Flush a folder's files to the disk."""
    for file in files(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="new folder on the disk to measure; deleted at the end"
    )
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="also measure the framework's converters, which hold models in memory",
    )
    parser.add_argument("--to", choices=WORKERS, default="nemo2", help="format besides Hugging Face's")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    try:
        rows = compare(options.folder, options.size, options.to, options.peer, options.rounds)
    finally:
        shutil.rmtree(options.folder)
    show(rows)


def compare(folder: Path, size: str, form: str, peer: bool, rounds: int) -> dict[str, dict[str, list[Run]]]:
    """Return the runs by direction and tool."""
    hf, checkpoint, back = folder / "hf", folder / form, folder / "back"
    # In another process: a child's peak resident set includes its parent's at the time of the fork
    subprocess.run([sys.executable, str(HERE / "models.py"), str(hf), size], check=True)
    total = sum(file.stat().st_size for file in hf.glob("*.safetensors"))
    print(f"Llama {size}: {total / 1e9:.1f} GB of weights", flush=True)
    verify = ["--verify", "none"]
    directions = {
        f"Hugging Face → {form}": (hf, checkpoint, form, "import"),
        f"{form} → Hugging Face": (checkpoint, back, "hf", "export"),
    }
    rows: dict[str, dict[str, list[Run]]] = {}
    for title, (source, output, to, kind) in directions.items():
        tools = {
            "cp": ["cp", "-r", str(source), str(output)],
            "nemolaunch, every bit verified": [
                *NEMOLAUNCH,
                str(source),
                str(output),
                "--to",
                to,
                "--verify",
                "bits",
            ],
            "nemolaunch": [*NEMOLAUNCH, str(source), str(output), "--to", to, *verify],
        }
        if peer:
            name, python, script = WORKERS[form]
            tools = {name: [python, str(HERE / script), kind, str(source), str(output)], **tools}
        rows[title] = {tool: [] for tool in tools}
        for _ in range(rounds):
            for tool, command in tools.items():
                rows[title][tool].append(measure(command, source, output))
                run = rows[title][tool][-1]
                print(f"  {title}: {tool}: {run.seconds:.1f} s, {run.peak_bytes / 2**30:.2f} GiB", flush=True)
        if form != "bridge":  # AutoBridge compares with the source when it exports
            shutil.rmtree(source)
    return rows


def show(rows: dict[str, dict[str, list[Run]]]) -> None:
    """Print medians, as ratios to cp."""
    print("| conversion | tool | seconds | × cp | peak memory, GiB |\n|---|---|---|---|---|")
    for title, tools in rows.items():
        copy = statistics.median(run.seconds for run in tools["cp"])
        for tool, runs in tools.items():
            seconds = statistics.median(run.seconds for run in runs)
            peak = max(run.peak_bytes for run in runs) / 2**30
            print(f"| {title} | {tool} | {seconds:.1f} | {seconds / copy:.2f} | {peak:.2f} |")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"(this script itself: {own:.2f} GiB)")


if __name__ == "__main__":
    main()
