"""Tokenising as a job array on a real cluster gives the bytes of one run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.test_container import SYSTEM
from tokens_support import pair, variant, write_jsonl

from nemolaunch.cli.commands import cancel, diagnose, logs, status
from nemolaunch.cli.commands.tokenize import main
from nemolaunch.facts.unfinished_data import look_at_unfinished, wait

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
    assert status.main([str(out)]) == 0
    said = capsys.readouterr().out
    assert f"tokenising: data in {out}/preprocessed (" in said
    assert f"job array {array}: " in said
    wait_for(f"{array}_0", "RUNNING", "COMPLETING", "COMPLETED")
    client.run("scontrol", "requeue", f"{array}_0")
    wait_for(join, "CANCELLED")
    said = "\n".join(p.read_text() for p in sorted(out.rglob("*.log")))
    assert states(array) == {"COMPLETED", "FAILED"}, said
    assert "Restarts=1" in client.run("scontrol", "show", "job", f"{array}_0")

    assert status.main([str(out)]) == 1
    assert re.search(
        r"interrupted: data in .*\n.*no task is in the queue.*\n +1 failed: ", capsys.readouterr().out
    )
    assert diagnose.main([str(out)]) == 0
    (task,) = re.findall(r"failed +task (\d+): 1 records are not documents", capsys.readouterr().out)
    assert logs.main([str(out), "--rank", task]) == 0
    assert "1 records are not documents" in capsys.readouterr().out
    assert logs.main([str(out), "--job"]) == 1
    assert "no log of the job that joins the results yet" in capsys.readouterr().err

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


def test_jobs_that_wait_and_are_cancelled(
    client: Cluster,
    tmp_path: Path,
    tokens_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits says why. After `cancel` nothing goes on, so that a training does not wait for the data for ever."""
    profile(tmp_path, monkeypatch, "partition: main\nsbatch: [hold]\n")
    write_jsonl(tmp_path / "in.jsonl", ["document " * 900] * 20)
    words = ["--hf-tokenizer", str(variant("small", tmp_path / "tokenizer")), "--data-prefix", "data"]
    words += ["--input-dir", str(tmp_path / "in.jsonl"), "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--cluster", "site", "--unit-bytes", "40000"]) == 0
    capsys.readouterr()
    out = str(tmp_path / "out")
    assert status.main([out]) == 0
    assert re.search(
        r"job array \d+: \d+ waiting \(JobHeldUser\); job \d+, which joins the results: PENDING",
        capsys.readouterr().out,
    )
    (run,) = look_at_unfinished([out])
    assert run.goes_on
    assert cancel.main([out]) == 0
    assert "cancelled job" in capsys.readouterr().out
    wait((out,), print)
    assert status.main([out]) == 1
    assert "run the same command again to continue" in capsys.readouterr().out


def profile(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Write the profile of a cluster named `site`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    path = folder / "config" / "nemolaunch" / "clusters" / "site.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_options_of_the_site(
    tmp_path: Path, tokens_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile's options and commands are those of the array and of the job that joins; nothing is written."""
    profile(
        tmp_path,
        monkeypatch,
        "account: them\npartition: main\nqos: low\nsbatch: [comment=x]\nmodules: [python]\n",
    )
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


def test_in_a_container(
    client: Cluster,
    containers: Cluster,
    image: Path,
    tmp_path: Path,
    tokens_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The jobs run in the profile's image, which sees the input, also by links, the tokenizer and the output."""
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{os.environ['PATH']}")
    mounts = json.dumps([f"{path}:{path}" for path in SYSTEM])
    profile(tmp_path, monkeypatch, f"partition: main\ncontainer_image: {image}\ncontainer_mounts: {mounts}\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked.jsonl").symlink_to(
        write_jsonl(tmp_path / "elsewhere" / "a.jsonl", ["some words"] * 20)
    )
    words = ["--hf-tokenizer", str(variant("small", tmp_path / "tokenizer")), "--data-prefix", "data"]
    words += ["--input-dir", str(tmp_path / "in"), "--engine", "hf", "--workers", "1", "--output-dir"]
    out, one = tmp_path / "out", tmp_path / "one"
    assert main([*words, str(one)]) == 0
    monkeypatch.chdir(tmp_path / "in")
    assert main([*words, str(out), "--cluster", "site"]) == 0
    (join,) = re.findall(r"and job (\d+), which joins", capsys.readouterr().out)
    wait_for(join, "COMPLETED", "CANCELLED", "FAILED")
    assert states(join) == {"COMPLETED"}, "\n".join(p.read_text() for p in out.rglob("*.log"))
    made = [folder / "preprocessed" / "data_text_document" for folder in (out, one)]
    assert pair(made[0]) == pair(made[1])
    script = (out / "preprocessed" / "data.slurm" / "tokenize.sh").read_text()
    assert f"srun --container-image {image} " in script


@pytest.mark.parametrize(
    ("runtime", "starts"), [("apptainer", "exec apptainer exec --env"), ("podman", "exec podman run --rm")]
)
def test_container_engines(
    runtime: str,
    starts: str,
    tmp_path: Path,
    tokens_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both scripts mount what the jobs need, and pass on what they export; `none` is this environment."""
    profile(tmp_path, monkeypatch, f"container_image: /img.sif\ncontainer_runtime: {runtime}\n")
    write_jsonl(tmp_path / "in" / "a.jsonl", ["document"])
    tokenizer = variant("small", tmp_path / "tokenizer")
    words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--input-dir", str(tmp_path / "in")]
    words += ["--output-dir", str(tmp_path / "out"), "--cluster", "site", "--dry-run"]
    assert main(words) == 0
    for script in capsys.readouterr().out.split("#!/bin/bash\n")[1:]:
        (line,) = [line for line in script.splitlines() if line.startswith(starts)]
        for folder in (tmp_path / "in", tokenizer, tmp_path / "out" / "preprocessed"):
            assert f" {folder}:{folder} " in line
        assert " /img.sif python -m nemolaunch.cli." in line
        assert ("--env PYTHONPATH " in line) == (runtime == "podman")
        assert ("export APPTAINERENV_PYTHONPATH=" in script) == (runtime == "apptainer")
    assert main([*words, "--container-image", "none"]) == 0
    assert f"exec {runtime}" not in capsys.readouterr().out
