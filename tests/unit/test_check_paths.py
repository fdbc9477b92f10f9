"""Paths that do not exist or contain something else: the message, and the path that was probably meant."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, write_data

from nemolaunch.findings import Finding
from nemolaunch.job import Job
from nemolaunch.planning import make_plan


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TOKENIZER, tmp_path / "tokenizers" / "mine")
    (tmp_path / "corpus").mkdir()
    write_data(tmp_path / "corpus")


def found(code: str, **values: Any) -> Finding:
    sound = {
        "model_name": "nano",
        "dataset_dir": ["corpus"],
        "hf_model_id": "tokenizers/mine",
        "seq_length": 64,
    }
    plan = make_plan(Job().with_values(**{**sound, "global_batch_size": 8, "max_steps": 10, **values}))
    matching = [finding for finding in plan.findings if finding.code == code]
    assert matching, [str(finding) for finding in plan.findings]
    return matching[0]


def advice(code: str, **values: Any) -> dict[str, object]:
    return found(code, **values).fixes[0].changes


@pytest.mark.parametrize("given", ["korpus", "corpu", "corpus/text_documnt", "korpus/text_document"])
def test_data_of_nearly_that_name_are_found(given: str) -> None:
    meant = "corpus/text_document" if "/" in given else "corpus"
    assert advice("data-unreadable", dataset_dir=[given]) == {"dataset_dir": (meant,)}


def test_in_a_blend_only_the_wrong_path_changes() -> None:
    shutil.copytree("corpus", "other")
    assert advice("data-unreadable", dataset_dir=["corpus:0.7,othr:0.3"]) == {
        "dataset_dir": ("corpus:0.7,other:0.3",)
    }


def test_a_folder_of_text_is_distinguished_from_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert found("data-unreadable", dataset_dir=["raw"]).message.endswith("raw contains no .bin/.idx pair")
    (tmp_path / "raw" / "a.jsonl").touch()
    assert "nemolaunch tokenize" in found("data-unreadable", dataset_dir=["raw"]).message


def test_of_many_unusable_files_the_first_few_are_reported(tmp_path: Path) -> None:
    for number in range(20):
        shutil.copy("corpus/text_document.idx", f"corpus/part{number}.idx")
        (tmp_path / "corpus" / f"part{number}.bin").touch()
    values: dict[str, Any] = {"model_name": "nano", "dataset_dir": ["corpus"], "hf_model_id": TOKENIZER}
    told = [f.message for f in make_plan(Job().with_values(**values)).findings if f.code == "data-unreadable"]
    assert len(told) == 6
    assert "15 more files" in told[-1]


@pytest.mark.parametrize("given", ["tokenizers/mien", "tokenizer/mine"])
def test_a_tokenizer_of_nearly_that_name_is_found(given: str) -> None:
    assert advice("tokenizer-unusable", hf_model_id=f"./{given}") == {"hf_model_id": "./tokenizers/mine"}


def checkpoint(folder: Path) -> None:
    (folder / "weights").mkdir(parents=True)
    (folder / "context").mkdir()
    for name in ("weights/metadata.json", "weights/__0_0.distcp", "context/io.json"):
        (folder / name).write_text("{}")


def test_the_newest_complete_checkpoint_of_a_run_is_suggested(tmp_path: Path) -> None:
    checkpoints = tmp_path / "runs" / "old" / "checkpoints"
    for step in (9, 10, 11):
        checkpoint(checkpoints / f"model--step={step}-consumed_samples=80")
    (checkpoints / "model--step=11-consumed_samples=80-unfinished").touch()
    for given in (checkpoints, checkpoints.parent):
        changes = advice("checkpoint-unusable", nemo_model=str(given))
        assert changes == {"nemo_model": f"{checkpoints}/model--step=10-consumed_samples=80"}


def test_a_hugging_face_model_must_be_converted(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    assert "nemolaunch convert" in found("checkpoint-unusable", nemo_model="hf").message


def test_relative_paths_are_absolute_in_the_plan(tmp_path: Path) -> None:
    checkpoint(tmp_path / "base")
    values = {
        "model_name": "nano",
        "dataset_dir": ["corpus"],
        "nemo_model": "base",
        "index_mapping_dir": "index",
    }
    plan = make_plan(Job().with_values(**values), given=dict.fromkeys(values, "flag"))
    assert plan.job.model.nemo_model == str(tmp_path / "base")
    assert plan.job.data.index_mapping_dir == str(tmp_path / "index")
    assert plan.origins["nemo_model"] == "flag"


SLURM = {"executor": "slurm", "num_gpus": 8}


def test_an_image_file_must_exist(tmp_path: Path) -> None:
    (tmp_path / "nemo 26.02.sqsh").touch()
    assert advice("slurm-image", container_image="./nemo_26.02.sqsh", **SLURM) == {
        "container_image": str(tmp_path / "nemo 26.02.sqsh")
    }
    # pyxis would look it up in a registry
    assert "registry" in found("slurm-image", container_image="nemo 26.02.sqsh", **SLURM).message


def test_spaces_in_paths_are_allowed_on_slurm(tmp_path: Path) -> None:
    shutil.copytree("corpus", "my corpus")
    (tmp_path / "nemo 26.02.sqsh").touch()
    values: dict[str, Any] = {"dataset_dir": ["my corpus"], "container_image": f"{tmp_path}/nemo 26.02.sqsh"}
    job = Job().with_values(
        model_name="nano", hf_model_id=TOKENIZER, global_batch_size=8, seq_length=64, **SLURM, **values
    )
    assert not [f.code for f in make_plan(job).findings if "path" in f.code or "image" in f.code]


def rewrite(path: Path, code: int, ids: bytes) -> None:
    """Overwrite the data with other token ids of another type."""
    size = {4: 4, 7: 4, 8: 2}[code]
    count = len(ids) // size
    path.with_suffix(".bin").write_bytes(ids)
    path.with_suffix(".idx").write_bytes(
        struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, code, 1, 2)
        + struct.pack("<i", count)
        + struct.pack("<3q", 0, 0, 1)
    )


def test_ids_beyond_the_tokenizer_are_detected_without_a_manifest() -> None:
    rewrite(Path("corpus/text_document"), 8, struct.pack("<5000H", *[7] * 4999, 9000))
    assert "up to 9000" in found("token-ids").message


def test_negative_ids_and_floats_are_rejected() -> None:
    rewrite(Path("corpus/text_document"), 4, struct.pack("<5000i", *[7] * 4999, -1))
    assert "negative" in found("data-unreadable").message
    rewrite(Path("corpus/text_document"), 7, struct.pack("<5000f", *[7] * 5000))
    assert "floats" in found("data-unreadable").message
