"""An index built beforehand is what the job reads, and one of earlier data is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.command import ENVIRONMENT, TIMEOUT_S
from e2e.jobs import TOKENIZER, llama, planned, prepared, train
from forkserver import ForkServer, JobFailed

from nemolaunch.cli.commands.tokenize import main as tokenize
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan

MLM: dict[str, Any] = {"objective": "mlm", "mask_token": "<|reserved_special_token_3|>"}
VALIDATED: dict[str, Any] = {"limit_val_batches": 1, "val_check_interval": 1, "max_steps": 2}


def tokenised(folder: Path, name: str, documents: int, word: str = "red") -> str:
    """Tokenise documents of 60 words each. Return the prefix."""
    text = "".join(json.dumps({"text": f"{word} green blue " * 20}) + "\n" for _ in range(documents))
    (folder / f"{name}.jsonl").write_text(text)
    words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", name, "--output-dir", str(folder), "--overwrite"]
    assert tokenize([*words, "--input-dir", str(folder / f"{name}.jsonl"), "--engine", "hf"]) == 0
    return str(folder / "preprocessed" / f"{name}_text_document")


def listing(plan: Plan) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file in the plan's index folder and beside it."""
    folder = Path(str(plan.index_folder)).parent
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def arrays(plan: Plan, name: str) -> list[np.ndarray]:
    """The arrays of this name in the plan's index."""
    return [np.load(path) for path in sorted(Path(str(plan.index_folder)).glob(f"*-{name}.npy"))]


def test_a_job_builds_none_of_a_prepared_index(fork_server: ForkServer, tmp_path: Path) -> None:
    """For a blend with validation and test splits, in two ranks. The index itself is as Megatron builds it."""
    a, b = tokenised(tmp_path, "a", 400), tokenised(tmp_path, "b", 300, "one")
    blend = f"{a}:0.7,{b}:0.3"
    plan = planned(tmp_path, blend, num_gpus=2, **VALIDATED)
    values = [f"--{name.replace('_', '-')}={plan.job.get(name)}" for name in VALIDATED]
    words = ["-M", llama(tmp_path), "--hf-model-id", TOKENIZER, "--dataset-dir", blend, "--split", "90,9,1"]
    command = [sys.executable, "-m", "nemolaunch", "prepare-index", *words, "-gbs", "16", *values, "--json"]
    done = subprocess.run(
        command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    said, before = json.loads(done.stdout), listing(plan)
    assert said["folder"] == plan.index_folder
    # description, documents, samples, shuffling of each file and split; description and two arrays of the blend
    assert said["files"] == 3 * (2 * 4 + 3) == len(before) - 1
    train(fork_server, plan)
    assert listing(plan) == before


def test_a_masked_model_reads_a_prepared_index(fork_server: ForkServer, tmp_path: Path) -> None:
    plan = planned(tmp_path, tokenised(tmp_path, "a", 400), **VALIDATED, **MLM)
    fork_server.run("e2e.index_job:build", {"plan_file": str(plan.run.plan)})
    before = listing(plan)
    train(fork_server, plan)
    assert listing(plan) == before


def test_the_index_is_that_of_the_data_now(fork_server: ForkServer, tmp_path: Path) -> None:
    """The data are replaced by a tenth as many documents, of which the index must name no other."""
    prefix = tokenised(tmp_path, "a", 400)
    away = {"index_mapping_dir": str(tmp_path / "index"), "split": "1,0,0", "max_steps": 2}
    first = planned(tmp_path, prefix, **away)
    train(fork_server, first)
    assert {int(array.max()) for array in arrays(first, "document_index")} == {399}

    tokenised(tmp_path, "a", 40)
    with pytest.raises(JobFailed, match="changed after this run was planned"):
        train(fork_server, first)
    again = {**first.job.values(), "output_dir": str(tmp_path / "again")}
    second = prepared(make_plan(Job().with_values(**again)))
    assert any(first.index_folder in str(f) for f in second.findings if first.index_folder)
    train(fork_server, second)
    assert {int(array.max()) for array in arrays(second, "document_index")} == {39}
    assert {int(array.max()) for array in arrays(first, "document_index")} == {399}


SLURM = {"executor": "slurm", "account": "a", "partition": "p", "container_image": "nvcr.io/x"}


@pytest.mark.parametrize(("model", "values"), [("llama3_8b", SLURM), ("t5_220m", {"device": "gpu"})])
def test_it_is_built_without_gpus_for_jobs_that_need_them(
    model: str, values: dict[str, Any], fork_server: ForkServer, tmp_path: Path
) -> None:
    job: dict[str, Any] = {
        "model_name": model,
        "hf_model_id": sentinels(tmp_path / "tokenizer"),
        "num_gpus": 1,
    }
    job |= {"dataset_dir": [tokenised(tmp_path, "a", 400)], "split": "90,9,1", "seq_length": 64}
    plan = make_plan(Job().with_values(**job, max_steps=2, global_batch_size=2, **values))
    (names,) = fork_server.run("e2e.index_job:build", {"plan_file": str(plan.save(tmp_path / "plan.json"))})
    assert [name for name in names if name.endswith("-sample_index.npy")]


def sentinels(folder: Path) -> str:
    """Write a tokenizer with tokens that stand for masked spans, which T5 needs."""
    shutil.copytree(TOKENIZER, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    tokens = [f"<|reserved_special_token_{i}|>" for i in range(5, 10)]
    path.write_text(json.dumps({**config, "additional_special_tokens": tokens}))
    return str(folder)
