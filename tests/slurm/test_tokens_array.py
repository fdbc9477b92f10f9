"""Tokenising as a job array on a real cluster gives the bytes of one run."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from tokens_support import pair, variant, write_jsonl

from nemolaunch.cli.commands.tokenize import main

SUBMITTED = re.compile(r"submitted job array (\d+) \((\d+) tasks, 2 at a time\), and job (\d+)")
ON_SLURM = ["--executor", "slurm", "--num-nodes", "2", "--partition", "main", "--unit-bytes", "40000"]


def states(job: str) -> set[str]:
    """States of all tasks of a job that Slurm still knows."""
    done = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
    return set(re.findall(r"JobState=(\w+)", done.stdout))


def wait_for(job: str, *ends: str) -> None:
    """Wait until a job is over."""
    deadline = time.monotonic() + 240
    while states(job) - set(ends) and time.monotonic() < deadline:
        time.sleep(1)


def test_an_array_of_units(
    client: Cluster, tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tasks on two nodes share a file that is larger than a unit. The array fails at a bad record, which
    a run on this machine names; with `--on-error skip` the same command does only what is left to do, joining.
    """
    tokenizer = variant("small", tmp_path / "tokenizer")
    lines = write_jsonl(tmp_path / "in" / "0.jsonl", [f"document {j} " * (j % 90) for j in range(300)])
    with open(lines, "a") as file:
        file.write("bad\n")
    for i in range(1, 5):
        write_jsonl(tmp_path / "in" / f"{i}.jsonl", [f"file {i} document {j} " * (j % 9) for j in range(100)])
    fixed = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--input-dir", str(tmp_path / "in")]
    fixed += ["--engine", "hf", "--workers", "1"]
    skip = ["--on-error", "skip"]
    assert main([*fixed, *skip, "--output-dir", str(tmp_path / "one")]) == 0
    out = tmp_path / "out folder"
    assert main([*fixed, "--output-dir", str(out), *ON_SLURM]) == 0
    array, num_tasks, join = SUBMITTED.findall(capsys.readouterr().out)[0]
    assert int(num_tasks) > 4
    wait_for(join, "CANCELLED")
    logs = "\n".join(p.read_text() for p in sorted(out.rglob("*.log")))
    assert states(array) == {"COMPLETED", "FAILED"}, logs
    assert "1 records are not documents" in logs

    assert main([*fixed, "--output-dir", str(out)]) == 1
    assert "0.jsonl, line 301: invalid JSON" in capsys.readouterr().err

    assert main([*fixed, *skip, "--output-dir", str(out), *ON_SLURM]) == 0
    (join,) = re.findall(r"all units are done; submitted job (\d+)", capsys.readouterr().out)
    wait_for(join, "COMPLETED")
    assert states(join) == {"COMPLETED"}, "\n".join(p.read_text() for p in out.rglob("join*.log"))
    made = [folder / "preprocessed" for folder in (out, tmp_path / "one")]
    assert pair(made[0] / "data_text_document") == pair(made[1] / "data_text_document")
    rejects = [(folder / "data_rejects.jsonl").read_text() for folder in made]
    assert rejects[0] == rejects[1]
    assert [p.name for p in made[0].iterdir() if not p.name.startswith("data_")] == ["data.slurm"]
    assert main([*fixed, *skip, "--output-dir", str(out), *ON_SLURM]) == 0
    assert "exist already" in capsys.readouterr().out


def test_options_of_the_site(
    tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile's options and commands are those of the array and of the job that joins; nothing is written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    profile = tmp_path / "config" / "nemolaunch" / "clusters" / "site.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("account: them\npartition: main\nqos: low\nsbatch: [comment=x]\nmodules: [python]\n")
    write_jsonl(tmp_path / "in.jsonl", ["document " * 900] * 20)
    words = ["--hf-tokenizer", str(variant("small", tmp_path / "tokenizer")), "--data-prefix", "data"]
    words += ["--input-dir", str(tmp_path / "in.jsonl"), "--output-dir", str(tmp_path / "out")]
    words += ["--cluster", "site", "--num-nodes", "3", "--unit-bytes", "40000", "--restart", "--dry-run"]
    assert main(words) == 0
    array, join = capsys.readouterr().out.split("#!/bin/bash\n")[1:]
    assert "#SBATCH --array=0-5%3\n" in array
    assert not re.search("--array|--exclusive", join)
    for script in (array, join):
        assert "#SBATCH --qos=low\n" in script
        assert "#SBATCH --comment=x\n" in script
        assert "module load python\n" in script
    assert "--executor local" in join
    assert not re.search(r"--(restart|cluster|unit-bytes|num-nodes)", join)
    assert not (tmp_path / "out").exists()
