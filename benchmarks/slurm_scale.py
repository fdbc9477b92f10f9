"""Measure planning, status, logs and diagnosis of a run on 1,000 nodes with 8 GPUs each: time and memory.

    python benchmarks/slurm_scale.py [--nodes 1000] [--steps 1000000] [--log-kilobytes 100]

Nothing runs on a cluster: the run folder is synthetic, with a log for each rank, a month of metrics, and a
crash that began on one of thousands of ranks. A stub of `squeue` reports that no job is queued. The peer of
each command is a plain tool that reads the same files in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from startup import TOKENIZER, tokenise

from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job, batch_script

GPUS = 8
COMMAND = [sys.executable, "-m", "nemolaunch.cli.main"]
ROW = {
    "step": 0, "time": 0.0, "loss": 2.5, "lr": 1e-4, "grad_norm": 0.5, "samples": 0, "tokens": 0, "step_time_s": 2.0,
    "tokens_per_s": 8.0e6, "tokens_per_s_per_gpu": 1000.0, "tflops_per_gpu": 400.0, "mfu": 0.4,
    "memory_peak_bytes": 7.0e10, "data_wait_s": 0.01,
}  # fmt: skip
START = "nemolaunch: start 77.0 on "
ECHO = "[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"


@dataclass
class Cost:
    """Wall time and peak memory of one process."""

    seconds: float
    megabytes: float
    output: str


def cost(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command. Exit code 1 is accepted: `status` and `diagnose` return it for a failed run."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    assert process.returncode in (0, 1), said
    return Cost(seconds, usage.ru_maxrss / 1024, said)


def job(folder: Path, nodes: int) -> list[str]:
    """Return a command line whose parallelism fits the number of nodes."""
    words = [
        "pretrain",
        "--executor",
        "slurm",
        "-A",
        "a",
        "-P",
        "p",
        "-M",
        "llama31_405b",
        "-TP",
        "8",
        "-PP",
        "8",
    ]
    words += [
        "--dataset-dir",
        str(folder / "data"),
        "--hf-model-id",
        TOKENIZER,
        "--seq-length",
        "8192",
        "-SP",
    ]
    words += ["-N", str(nodes), "-G", str(GPUS), "-gbs", str(nodes // 8 * 16), "--max-steps", "1000000"]
    return [
        *words,
        "--output-dir",
        str(folder / "run"),
        "--force",
        "data-repeated",
        "--limit-val-batches",
        "0",
    ]


def fill(plan: Plan, nodes: int, steps: int, log_bytes: int) -> None:
    """Write the folder of a run in which rank 4320 of 8,000 ran out of GPU memory after many steps."""
    run, ranks = plan.run, nodes * GPUS
    run.logs.mkdir(parents=True)
    run.slurm.mkdir()
    plan.save()
    run.slurm_current.write_text("77 0\n")
    run.slurm_attempts.write_text(f"- 0 1 submitted\n77 0 1795568147 999 n[0001-{nodes:04}]\n")
    run.slurm_stopped.write_text("3 attempts in a row made no progress beyond checkpoint 999\n")
    line = "[NeMo I 2026-11-25 01:00:00 nemo_logging:393] step done, all is well on this rank\n"
    body = line * (log_bytes // len(line))
    for rank in range(ranks):
        first = rank == ranks * 54 // 100
        kind = "OutOfMemoryError" if first else "RuntimeError"
        message = "CUDA out of memory. Tried to allocate 2.00 GiB" if first else ECHO
        run.rank_log(rank).write_text(f"{START}n{rank // GPUS + 1:04}\n{body}{kind}: {message}\n")
        record = {
            "rank": rank,
            "time": 100.0 + (not first),
            "type": kind,
            "message": message,
            "start": "77.0",
        }
        run.rank_error(rank).write_text(json.dumps(record))
    with open(run.metrics, "w") as metrics:
        metrics.write('{"event": "start", "step": 0, "time": 1.0}\n')
        for step in range(1, steps + 1):
            metrics.write(json.dumps({**ROW, "step": step, "time": 2.0 * step, "samples": 16 * step}) + "\n")
    output = batch_job.task_dir(plan) / f"sbatch_{batch_job.job_name(plan)}_77.out"
    output.parent.mkdir(parents=True)
    ends = "".join(
        f"srun: error: n{node + 1:04}: tasks {node * GPUS}-{node * GPUS + 7}: Exited with exit code 1\n"
        for node in range(nodes)
    )
    output.write_text(f"{START}n[0001-{nodes:04}]\n{ends}nemolaunch: exited with code 1 at checkpoint 999\n")


def main() -> None:
    """Write a run folder and a stub of `squeue`, and measure."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--nodes", type=int, default=1000)
    arguments.add_argument("--steps", type=int, default=1_000_000)
    arguments.add_argument("--log-kilobytes", type=int, default=100, help="per rank")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenise(str(folder / "data"))
        (folder / "bin").mkdir()
        (folder / "bin" / "squeue").write_text("#!/bin/sh\n")
        (folder / "bin" / "squeue").chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        measure(folder, given, environment)


def measure(folder: Path, given: argparse.Namespace, environment: dict[str, str]) -> None:
    """Measure each command and its peer, and print a table."""
    words = job(folder, given.nodes)
    saved = subprocess.run(
        [*COMMAND, "pretrain", *words[1:], "--dry-run", "--format", "json"], capture_output=True, text=True
    )
    assert saved.stdout, saved.stderr
    file = folder / "plan.json"
    content = json.loads(saved.stdout)
    del content["script"]  # part of the dry run's output only
    file.write_text(json.dumps({"format": 1, **content}))
    plan = Plan.load(file)
    fill(plan, given.nodes, given.steps, given.log_kilobytes * 1000)
    run, metrics, logs = str(plan.run.root), str(plan.run.metrics), str(plan.run.logs)
    last = str(given.nodes * GPUS - 1)
    read_all = "import json, sys\nfor line in open(sys.argv[1]): row = json.loads(line)\nprint(row['loss'])"
    runs = {
        "dry run": ([*words, "--dry-run"], "import nemo_run", [sys.executable, "-c", "import nemo_run"]),
        "status": (["status", run], "json.loads of every row", [sys.executable, "-c", read_all, metrics]),
        f"logs --rank {last}": (
            ["logs", run, "--rank", last], "tail -n 40", ["tail", "-n", "40", f"{logs}/rank{last}.log"]
        ),
        "diagnose": (["diagnose", run], "grep -rl Error", ["grep", "-rlE", "Error", logs]),
    }  # fmt: skip
    table = Table(title=f"{given.nodes:,} nodes with {GPUS} GPUs each: {given.nodes * GPUS:,} ranks")
    for heading in ("command", "seconds", "peak MB", "peer", "peer's seconds", "peer's peak MB"):
        table.add_column(heading, justify="left" if heading in ("command", "peer") else "right")
    for command, (arguments, peer, peers) in runs.items():
        cost(peers, environment)  # brings the files into the page cache
        theirs, ours = cost(peers, environment), cost([*COMMAND, *arguments], environment)
        table.add_row(
            command, f"{ours.seconds:.2f}", f"{ours.megabytes:.0f}", peer,
            f"{theirs.seconds:.2f}", f"{theirs.megabytes:.0f}",
        )  # fmt: skip
        if command == "diagnose":
            assert "rank 4320 on n0541" in ours.output or given.nodes != 1000, ours.output
            assert "[gpu-memory]" in ours.output, ours.output
    Console().print(table)
    total = sum(path.stat().st_size for path in plan.run.root.rglob("*") if path.is_file())
    print(
        f"batch script: {len(batch_script.script(plan).encode()) / 1000:.1f} KB; run folder: {total / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
