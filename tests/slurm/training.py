"""Real trainings on the test cluster: small models on the CPU, submitted by the real command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from slurm.cluster import Cluster
from slurm.memory import MemoryLimit

from nemolaunch.planning import Plan
from nemolaunch.run import metrics
from nemolaunch.run.attempts import attempts, expand_nodes
from nemolaunch.run.folder import RunDir, unfinished
from nemolaunch.slurm import batch_job
from nemolaunch.system.atomic_files import write_text

ROOT = Path(__file__).parents[2]
# Over the two nodes; in fp32, as some CPUs take seconds for a step in bf16
LAYOUT = {"tensor_model_parallel_size": 2, "precision": "fp32"}
BACKENDS: dict[str, dict[str, Any]] = {"nemo2": {}, "bridge": {"backend": "bridge", "python": PYTHON}}
COMMAND = ROOT / "train" / "llm" / "pretrain" / "pretrain_llm.py"


def backend_flags(backend: str) -> dict[str, Any]:
    """The flags that choose a backend. Skips the test where its environment is missing."""
    if backend == "bridge" and not PYTHON.exists():
        pytest.skip("there is no .venv-bridge; `make install-bridge` builds it")
    return BACKENDS[backend]


class Training:
    """One run folder. `flags` are those of the command, by name."""

    def __init__(self, cluster: Cluster, folder: Path, data: Path, **flags: Any) -> None:
        self.cluster = cluster
        self.run = RunDir(folder)
        self.flags = {
            "executor": "slurm",
            "device": "cpu",
            "gres": "none",
            "container_image": "none",
            "partition": "main",
            "account": "root",
            "num_nodes": 2,
            "num_gpus": 1,
            "model_name": "demo-llama",
            "dataset_dir": data,
            "hf_model_id": ROOT / "examples" / "tokenizer",
            "global_batch_size": 8,
            "micro_batch_size": 2,
            "seq_length": 128,
            "max_steps": 20,
            "warmup_steps": 2,
            "checkpoint_every": 4,
            "limit_val_batches": 0,
            "lr": "2e-3",
            "split": "970,29,1",
            "experiment": folder.name,
            "output_dir": folder,
            **flags,
        }
        self.limits: list[MemoryLimit] = []
        self.faults = folder.parent / f"{folder.name}-faults"
        self.faults.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "NEMOLAUNCH_TEST_FAULTS": str(self.faults),
            # the two nodes share the cores of this machine, of which each counts all
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(Path(__file__).with_name("inject")), os.environ.get("PYTHONPATH")])
            ),
        }

    def order(self, rank: int, what: str) -> None:
        """Have a rank do something at its next batch; see inject/sitecustomize.py."""
        write_text(self.faults / f"rank{rank}", what)

    def fed(self) -> dict[int, list[int]]:
        """Checksums of the batches of each step, as they were when the step was last done."""
        found: dict[int, list[int]] = {}
        before = (-1, -1)
        for line in (self.faults / "fed-rank0").read_text().splitlines():
            process, step, checksum = map(int, line.split())
            if (process, step) != before:
                found[step] = []
            found[step].append(checksum)
            before = (process, step)
        return found

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Submit it; the process ends when the run does, with its exit code."""
        return subprocess.Popen(
            [sys.executable, str(COMMAND), *self.words(), *words],
            env={**self.cluster.environment, **self.environment},
            cwd=self.run.root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def words(self) -> list[str]:
        """The flags as they are typed."""
        words = []
        for name, value in self.flags.items():
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
        return words

    def rows(self) -> list[dict[str, Any]]:
        """The steps that count, one row each."""
        return [row for row in metrics.current(metrics.read(self.run.metrics)) if "loss" in row]

    def step(self) -> int:
        return max((int(row["step"]) for row in self.rows()), default=0)

    def wait_for_step(self, step: int, timeout_s: float = 400) -> None:
        self.cluster.wait_until(f"step {step}", lambda: self.step() >= step, timeout_s)

    def wait_for_new_steps(self, count: int, timeout_s: float = 400) -> None:
        """Until the present start has done so many steps."""

        def done() -> bool:
            begun = max((attempt.time for attempt in attempts(self.run)), default=time.time())
            return (
                sum("loss" in row and row["time"] > begun for row in metrics.read(self.run.metrics)) >= count
            )

        self.cluster.wait_until(f"{count} new steps", done, timeout_s)

    def plan(self) -> Plan:
        return Plan.load(self.run.plan)

    def num_attempts(self) -> int:
        return len(attempts(self.run))

    def saving(self) -> str | None:
        """Name of a checkpoint that is being written."""
        folders = [path for path in self.run.checkpoints.glob("*") if path.is_dir() and not path.is_symlink()]
        return next((path.name for path in folders if unfinished(path)), None)

    def is_on(self, node: str) -> bool:
        """Whether Slurm thinks that the run is running there."""
        hosts = self.cluster.run("squeue", "-h", "-t", "R", "-n", batch_job.job_name(self.plan()), "-o", "%N")
        return node in expand_nodes(hosts)

    def end(self) -> None:
        """Leave nothing of it in the queue."""
        if self.run.plan.exists():
            self.cluster.run("scancel", "-n", batch_job.job_name(self.plan()))
        for limit in self.limits:
            limit.remove()

    def job(self) -> str:
        return self.run.slurm_current.read_text().split()[0]

    def rank_pids(self, rank: int) -> list[int]:
        """Processes of a rank, wherever in the name spaces of the nodes they are; the rank itself first.

        They are in the order of their starts: numbers of processes begin again at 32768.
        """
        wanted = {f"SLURM_PROCID={rank}".encode(), f"SLURM_JOB_ID={self.job()}".encode()}
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    variables = set(Path(entry.path, "environ").read_bytes().split(b"\0"))
                    command = Path(entry.path, "cmdline").read_bytes()
                    began = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[19])
                except OSError:
                    continue
                if wanted <= variables and (b"fdl_runner" in command or b"bridge.entry" in command):
                    found.append((began, int(entry.name)))
        return [number for _, number in sorted(found)]


def same_as(quiet: Training, run: Training) -> None:
    """Every step's loss, gradient norm and batches are those of a run that nothing happened to."""
    assert figures(run) == figures(quiet)
    assert run.fed() == quiet.fed()


def figures(run: Training) -> list[tuple[int, float, float, int]]:
    return [(row["step"], row["loss"], row["grad_norm"], row["samples"]) for row in run.rows()]


def finish(process: subprocess.Popen[str], timeout_s: float = 1800) -> tuple[int, str]:
    """Exit code and everything it said."""
    said, _ = process.communicate(timeout=timeout_s)
    return process.returncode, said
