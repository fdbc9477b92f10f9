"""Slurm clusters as people have them: one test a public report, with its right value and where that comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from check_jobs import findings

from nemolaunch.facts.partitions import parse_sinfo
from nemolaunch.facts.slurm_variables import in_plain_shell, plain_environment
from nemolaunch.slurm.submission import sbatch, shell_here

MIXED = """\
gpu|2-00:00:00|2|gpu:h100:8(S:0-1)|up|0/2/0/2|1-infinite
gpu|2-00:00:00|6|gpu:a100:4(S:0-1)|up|2/4/0/6|1-infinite
"""
PAIRS = "gpu|2-00:00:00|8|gpu:8|up|0/8/0/8|2-4\n"
SLICED = "gpu|2-00:00:00|4|gpu:a100:6,gpu:1g.10gb:14|up|0/4/0/4|1-infinite\n"


def found_on(sinfo: str, **values: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the codes of a job's errors about a cluster, with the changes that remove each."""
    facts = {"partitions": parse_sinfo(sinfo)}
    found = findings("llama32_1b", changed=facts, **{"partition": "gpu", **values})
    wrong = [f for f in found if f.severity.name == "ERROR" and f.code.startswith("slurm-")]
    return {f.code: [fix.changes for fix in f.fixes] for f in wrong}


def test_a_partition_of_several_kinds_of_nodes() -> None:
    """silx-kit/jupyterhub_moss#97: one figure for all nodes of a partition. Of these eight, two have eight GPUs.

    `sbatch -N 4 --gpus-per-node=8` answers `Requested node configuration is not available` (Slurm 22.05).
    """
    assert found_on(MIXED, num_nodes=4, num_gpus=8) == {"slurm-nodes": [{"num_nodes": 2}, {"num_gpus": 4}]}
    assert found_on(MIXED, num_nodes=2, num_gpus=8) == {}
    assert found_on(MIXED, num_nodes=8, num_gpus=4) == {}


def test_a_partition_that_takes_no_small_jobs() -> None:
    """radical-cybertools/radical.pilot#2857: MinNodes. sinfo writes both ends: `2-4` (sinfo manual, %s)."""
    assert found_on(PAIRS, num_nodes=1, num_gpus=8) == {"slurm-nodes": [{"num_nodes": 2}]}
    assert found_on(PAIRS, num_nodes=5, num_gpus=8) == {"slurm-nodes": [{"num_nodes": 4}]}


def test_resources_without_their_name() -> None:
    """NVIDIA/NeMo-Framework-Launcher#72: `--gres` needs its name: `gpu:h100:8`.

    `sbatch --gres=h100:8` answers `Invalid generic resource (gres) specification` (Slurm 22.05).
    """
    assert found_on(MIXED, gres="h100:8", num_gpus=8) == {"slurm-gres-form": [{"gres": "gpu:h100:8"}]}


def test_ranks_and_resources_of_different_number() -> None:
    """exemplar-performance#5: eight ranks on four requested GPUs fail on the nodes, with `invalid device ordinal`."""
    assert found_on(MIXED, gres="gpu:4", num_gpus=8) == {"slurm-gres": [{"gres": "gpu:8"}, {"num_gpus": 4}]}


def test_slices_of_gpus() -> None:
    """NVIDIA/nccl#1716, pytorch/pytorch#130181: NCCL connects no MIG slices, so 6 GPUs and 14 slices are 6 GPUs."""
    assert found_on(SLICED, num_gpus=8) == {"slurm-gpus": [{"num_gpus": 6}]}
    assert list(found_on(SLICED, gres="gpu:1g.10gb:7")) == ["slurm-slices"]
    assert found_on(SLICED, gres="gpu:1g.10gb:1", num_gpus=1) == {}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called sbatch that writes down the environment it is started in."""
    file = tmp_path / "sbatch"
    file.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\necho 77\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "environment"


OUTER = {
    "SBATCH_ACCOUNT": "other",
    "SBATCH_TIMELIMIT": "10",
    "SBATCH_EXPORT": "NONE",
    "SLURM_MEM_PER_CPU": "4000",
}


def test_submitting_from_inside_a_job(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mehta-lab/recOrder#482, snakemake/snakemake#2230: variables of the job around a submission reach it.

    `SLURM_MEM_PER_CPU` then contradicts `--mem`: `srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and
    SLURM_MEM_PER_NODE are mutually exclusive`. `SBATCH_*` outranks `#SBATCH` (sbatch manual), so that the plan's
    account and time would not be those of the job, and without HF_TOKEN if SBATCH_EXPORT=NONE.
    """
    for name, value in {**OUTER, "SLURM_CONF": "/etc/slurm/slurm.conf", "HF_TOKEN": "x"}.items():
        monkeypatch.setenv(name, value)
    assert sbatch(["script.sh"], shell_here(os.environ)) == "77"
    names = {line.partition("=")[0] for line in program.read_text().splitlines()}
    assert not names & OUTER.keys()
    assert {"SLURM_CONF", "HF_TOKEN", "PATH"} <= names
    assert plain_environment({"SLURM_JWT": "token", "SLURM_TOKENS": "1"}) == {"SLURM_JWT": "token"}


def test_submitting_through_a_login_node_whose_profile_sets_them(program: Path) -> None:
    """tgen/jetstream#39: a site's shell profile exports `SBATCH_*`. Over SSH their names are known only there."""
    environment = {"PATH": f"{program.parent}:/usr/bin:/bin", **OUTER, "SLURM_CONF": "/etc/slurm/slurm.conf"}
    command = in_plain_shell("sbatch --parsable 'my script.sh'")
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "77\n"
    names = {line.partition("=")[0] for line in program.read_text().splitlines()}
    assert not names & OUTER.keys()
    assert "SLURM_CONF" in names
