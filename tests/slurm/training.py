"""Real trainings on the test cluster: small models on the CPU, submitted by the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from slurm.cluster import Cluster

from nemolaunch.observe import metrics
from nemolaunch.plan import Plan
from nemolaunch.rundir import RunDir

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "train" / "llm" / "pretrain" / "pretrain_llm.py"


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
            "max_steps": 12,
            "warmup_steps": 2,
            "checkpoint_every": 2,
            "limit_val_batches": 0,
            "lr": "2e-3",
            "split": "970,29,1",
            "experiment": folder.name,
            "output_dir": folder,
            **flags,
        }
        self.environment: dict[str, str] = {}

    def start(self) -> subprocess.Popen[str]:
        """Submit it; the process ends when the run does, with its exit code."""
        words = [sys.executable, str(COMMAND)]
        for name, value in self.flags.items():
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
        return subprocess.Popen(
            words,
            env={**self.cluster.environment, **self.environment},
            cwd=self.run.root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rows(self) -> list[dict[str, Any]]:
        """The steps that count, one row each."""
        return [row for row in metrics.current(metrics.read(self.run.metrics)) if "loss" in row]

    def step(self) -> int:
        return max((int(row["step"]) for row in self.rows()), default=0)

    def wait_for_step(self, step: int, timeout_s: float = 400) -> None:
        self.cluster.wait_until(f"step {step}", lambda: self.step() >= step, timeout_s)

    def plan(self) -> Plan:
        return Plan.load(self.run.plan)

    def job(self) -> str:
        return self.run.slurm_current.read_text().split()[0]

    def rank_pids(self, rank: int) -> list[int]:
        """Processes of a rank, wherever in the name spaces of the nodes they are; the rank itself first."""
        wanted = {f"SLURM_PROCID={rank}".encode(), f"SLURM_JOB_ID={self.job()}".encode()}
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    variables = set(Path(entry.path, "environ").read_bytes().split(b"\0"))
                    command = Path(entry.path, "cmdline").read_bytes()
                except OSError:
                    continue
                if wanted <= variables and b"fdl_runner" in command:
                    found.append(int(entry.name))
        return sorted(found)


def finish(process: subprocess.Popen[str], timeout_s: float = 900) -> tuple[int, str]:
    """Exit code and everything it said."""
    said, _ = process.communicate(timeout=timeout_s)
    return process.returncode, said
