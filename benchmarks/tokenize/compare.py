"""Compare tools that tokenise corpora in one interleaved run, as ratios.

    python corpus.py --packages . --output corpus
    python compare.py --corpus corpus/corpus.jsonl --tokenizer corpus/tokenizer --megatron CHECKOUT --rounds 3

Each tool runs as a separate process, in turn, `--rounds` times. Wall and CPU time are medians; memory is the
highest sampled PSS of all its processes. Outputs in the .bin/.idx format are compared byte for byte with
those of Megatron-LM's tool. `-ray` starts a cluster with as many workers for the run, whose start and daemons
count. The library alone, on texts in memory, without files and start, is measured twice: `library-` calls it
once, with its own threads; `processes-` runs one process per worker.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parent
# prctl: what a command leaves behind becomes a child of this process, so that its CPU time is counted
PR_SET_CHILD_SUBREAPER = 36
# Sampling the memory of a process takes time on the cores being measured.
SAMPLE_EVERY_S = 0.25


@dataclass
class Run:
    """One run of one tool."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def commands(options: argparse.Namespace, out: Path) -> dict[str, list[str]]:
    """Return each tool's command; outputs go to `out/NAME_text_document`."""
    corpus, tokenizer, workers = str(options.corpus), str(options.tokenizer), str(options.workers)
    found: dict[str, list[str]] = {}
    if options.megatron:
        tool = [sys.executable, str(HERE / "megatron_tool.py"), str(options.megatron)]
        common = [
            "--input",
            corpus,
            "--tokenizer-type",
            "HuggingFaceTokenizer",
            "--tokenizer-model",
            tokenizer,
        ]
        common += ["--append-eod", "--output-prefix"]
        found["megatron"] = [
            *tool,
            "preprocess_data.py",
            *common,
            str(out / "megatron"),
            "--workers",
            workers,
        ]
        fast = [*tool, "preprocess_data_fast.py", *common, str(out / "megatron-fast")]
        fast.append("--use-gigatoken")
        found["megatron-fast"] = fast
    peers = [sys.executable, str(HERE / "peers.py")]
    for peer in ("datatrove", "hf-map"):
        found[peer] = [*peers, peer, corpus, tokenizer, str(out / peer), workers]
    for engine in ("hf", "fastokens", "gigatoken"):
        found[f"nemolaunch-{engine}"] = [
            sys.executable, "-m", "nemolaunch.cli.main", "tokenize", "--hf-tokenizer", tokenizer,
            "--data-prefix", f"nemolaunch-{engine}", "--input-dir", corpus, "--output-dir", str(out),
            "--workers", workers,
            "--engine", engine,
        ]  # fmt: skip
        found[f"nemolaunch-{engine}-ray"] = [
            *(
                word.replace(f"nemolaunch-{engine}", f"nemolaunch-{engine}-ray")
                for word in found[f"nemolaunch-{engine}"]
            ),
            *("--executor", "ray"),
        ]
        for alone in (f"library-{engine}", f"processes-{engine}"):
            found[alone] = [*peers, alone, corpus, tokenizer, str(out / alone), workers]
    wanted = options.only or list(found)
    return {name: command for name, command in found.items() if name in wanted}


def measure(command: list[str], log: Path) -> Run:
    """Measure a command. Raises CalledProcessError if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin, peak = time.monotonic(), 0
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, _pss(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_EVERY_S)
    wall = time.monotonic() - begin
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(*(_reported(log) or (wall, cpu)), peak / 1e6)


def _reported(log: Path) -> tuple[float, float] | None:
    """Return the wall and CPU time that a library run reports itself, which exclude loading."""
    lines = log.read_text(errors="replace").splitlines()
    if lines and lines[-1].startswith('{"seconds"'):
        found = json.loads(lines[-1])
        return float(found["seconds"]), float(found["cpu"])
    return None


def _pss(pid: int) -> int:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def same(out: Path, name: str) -> str:
    """Say whether a tool's output equals that of Megatron-LM's tool."""
    mine = out / "preprocessed" if name.startswith("nemolaunch") else out
    pairs = [
        (mine / f"{name}_text_document.{e}", out / f"megatron_text_document.{e}") for e in ("bin", "idx")
    ]
    if not all(a.exists() and b.exists() for a, b in pairs):
        return "–"
    return "yes" if all(a.read_bytes() == b.read_bytes() for a, b in pairs) else "no"


def main() -> None:
    """Measure all tools, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--megatron", type=Path, help="a checkout of Megatron-LM")
    parser.add_argument("--output", type=Path, default=Path("bench-out"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="TOOL")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    megabytes = os.path.getsize(options.corpus) / 1e6
    runs: dict[str, list[Run]] = {}
    identical: dict[str, str] = {}
    for number in range(options.rounds):
        shutil.rmtree(options.output, ignore_errors=True)
        options.output.mkdir(parents=True)
        for name, command in commands(options, options.output).items():
            try:
                runs.setdefault(name, []).append(measure(command, options.output / f"{name}.log"))
            except subprocess.CalledProcessError as error:
                print(f"round {number}: {name} failed with {error.returncode}", file=sys.stderr)
                continue
            identical[name] = same(options.output, name)
    base = {name: found for name, found in runs.items() if found}
    first = base.get("megatron") or next(iter(base.values()))
    reference = statistics.median(r.wall_s for r in first)
    reference_cpu = statistics.median(r.cpu_s for r in first)
    print("| tool | MB/s | × first, wall | × first, CPU | CPU s | peak MB | identical |")
    print("|---|---|---|---|---|---|---|")
    for name, found in base.items():
        wall, cpu = statistics.median(r.wall_s for r in found), statistics.median(r.cpu_s for r in found)
        peak = max(r.peak_mb for r in found)
        ratios = f"{reference / wall:.1f} | {reference_cpu / cpu:.1f}"
        same_bytes = identical.get(name, "–")
        print(f"| {name} | {megabytes / wall:.1f} | {ratios} | {cpu:.1f} | {peak:.0f} | {same_bytes} |")


if __name__ == "__main__":
    main()
