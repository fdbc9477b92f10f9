"""The folder of Megatron's index depends on the content of the data; caches of other contents are reported, removed."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokens_support import variant, write_jsonl

from nemolaunch.cli.commands import merge, prepare_index, tokenize
from nemolaunch.data import index_cache
from nemolaunch.data.index_files import remove_incomplete
from nemolaunch.findings import Finding
from nemolaunch.job import Job
from nemolaunch.launching.prepare import make_index_folder
from nemolaunch.planning import Plan, make_plan

TOKENIZER = str(Path(__file__).parents[2] / "examples" / "tokenizer")


def write_pair(prefix: Path, lengths: list[int], first: int = 0) -> str:
    """Write documents of these lengths in Megatron's format: token ids that count up from `first`."""
    ends = np.cumsum(lengths)
    with open(f"{prefix}.bin", "wb") as file:
        file.write(((np.arange(ends[-1]) + first) % 500).astype(np.uint16).tobytes())
    with open(f"{prefix}.idx", "wb") as file:
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, len(lengths), len(lengths) + 1))
        file.write(np.array(lengths, np.int32).tobytes())
        file.write((2 * (ends - lengths)).astype(np.int64).tobytes())
        file.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())
    return str(prefix)


def planned(*data: str, **values: Any) -> Plan:
    defaults = {"model_name": "nano", "hf_model_id": TOKENIZER, "max_steps": 2, "global_batch_size": 1}
    return make_plan(Job().with_values(**{**defaults, "dataset_dir": data, **values}))


def folder_of(*data: str, **values: Any) -> Path:
    found = planned(*data, **values).index_folder
    assert found
    return Path(found)


def old(plan: Plan) -> list[Finding]:
    return [finding for finding in plan.findings if finding.code == "index-cache-old"]


def lengths(seed: int, documents: int = 5000) -> list[int]:
    """Lengths with the same sum for every seed."""
    drawn = list(np.random.default_rng(0).integers(5, 50, documents))
    return list(np.random.default_rng(seed).permutation(drawn))


def test_it_depends_on_content_split_seed_and_length(tmp_path: Path) -> None:
    prefix = write_pair(tmp_path / "a", lengths(1))
    folder = folder_of(prefix)
    assert folder.parent == tmp_path / "cache"
    assert folder == folder_of(prefix)
    assert folder == folder_of(prefix, max_steps=9, lr=1e-4)
    others: list[dict[str, Any]] = [{"split": "9,1,0"}, {"seed": 7}, {"seq_length": 128}]
    assert len({folder, *(folder_of(prefix, **values) for values in others)}) == 4


@pytest.mark.parametrize("documents", [20, 5000])
def test_other_content_of_the_same_size_is_seen(tmp_path: Path, documents: int) -> None:
    """Small indices are read whole, large ones in pieces; lengths are in the index, ids only in the .bin."""
    prefix = write_pair(tmp_path / "a", lengths(1, documents))
    sizes = [os.path.getsize(f"{prefix}{ending}") for ending in (".bin", ".idx")]
    before = folder_of(prefix)
    write_pair(tmp_path / "a", lengths(2, documents))
    reordered = folder_of(prefix)
    write_pair(tmp_path / "a", lengths(2, documents), first=1)
    assert sizes == [os.path.getsize(f"{prefix}{ending}") for ending in (".bin", ".idx")]
    assert len({before, reordered, folder_of(prefix)}) == 3


def test_moved_data_keep_their_identity(tmp_path: Path) -> None:
    prefix = write_pair(tmp_path / "a", lengths(1))
    before = folder_of(prefix)
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    moved = folder_of(str(tmp_path / "elsewhere" / "a"))
    assert moved == tmp_path / "elsewhere" / "cache" / before.name


def test_a_changed_member_of_a_blend(tmp_path: Path) -> None:
    one, two = write_pair(tmp_path / "a", lengths(1)), write_pair(tmp_path / "b", lengths(2))
    blend = f"{one}:0.7,{two}:0.3"
    before = planned(blend)
    make_index_folder(before)
    assert old(before) == []
    write_pair(tmp_path / "b", lengths(3))
    after = planned(blend)
    assert after.index_folder != before.index_folder
    (found,) = old(after)
    assert f"rm -r {before.index_folder}" in found.message
    assert old(planned(one)) == []  # its content is the same


def test_it_can_be_away_from_data_that_are_read_only(tmp_path: Path) -> None:
    prefix = write_pair(tmp_path / "a", lengths(1))
    folder = folder_of(prefix, index_mapping_dir=str(tmp_path / "index"))
    assert folder.parent == tmp_path / "index"
    assert folder.name == folder_of(prefix).name


def test_a_plan_that_is_repeated_takes_the_folder_as_given(tmp_path: Path) -> None:
    """The identity is no part of the flag's value, or it would be added to it again."""
    prefix = write_pair(tmp_path / "a", lengths(1))
    plan = planned(prefix, index_mapping_dir=str(tmp_path / "index"))
    saved = Plan.load(plan.save(tmp_path / "plan.json"))
    assert saved.index_folder == plan.index_folder
    assert saved.digests == plan.digests
    assert make_plan(Job().with_values(**saved.job.values())).index_folder == plan.index_folder


def test_caches_in_megatrons_own_places_are_reported(tmp_path: Path) -> None:
    """`GPTDataset` writes PREFIX/cache, or files named by a hash straight into `path_to_cache`."""
    prefix = write_pair(tmp_path / "día", lengths(1))
    beside = Path(prefix) / "cache" / "GPTDataset_indices"
    beside.mkdir(parents=True)
    (beside / "x.npy").write_bytes(bytes(3_000_000))
    away = tmp_path / "index"
    away.mkdir()
    for name, described in (("1" * 32, prefix), ("2" * 32, "/of/another")):
        text = json.dumps({"class": "GPTDataset", "dataset_path": described}, indent=4)
        (away / f"{name}-GPTDataset-train-description.txt").write_text(text)
        (away / f"{name}-GPTDataset-train-sample_index.npy").write_bytes(bytes(2_000_000))
    (found,) = old(planned(prefix, index_mapping_dir=str(away)))
    assert "2 index caches of these data (5.0 MB)" in found.message
    assert f"'{beside}' {away}/{'1' * 32}-GPTDataset-train-*" in found.message


def test_rewriting_data_removes_their_caches(tmp_path: Path, tokens_cache: Path) -> None:
    def written(name: str, *words: str) -> str:
        fixed = ["--hf-tokenizer", str(small), "--data-prefix", name, "--engine", "hf", "--workers", "1"]
        fixed += ["--input-dir", str(tmp_path / f"{name}.jsonl"), "--output-dir", str(tmp_path)]
        assert tokenize.main([*fixed, *words]) == 0
        return str(tmp_path / "preprocessed" / f"{name}_text_document")

    small = variant("small", tmp_path / "tokenizer")
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"{name} document {i}" for i in range(400)])
    plans = [planned(written(name), seq_length=8) for name in ("a", "b")]
    for plan in plans:
        make_index_folder(plan)
    megatrons = tmp_path / "preprocessed" / "a_text_document" / "cache" / "GPTDataset_indices"
    megatrons.mkdir(parents=True)

    written("a", "--overwrite", "--restart")
    assert [Path(str(plan.index_folder)).exists() for plan in plans] == [
        True,
        True,
    ]  # the content is the same
    write_jsonl(tmp_path / "a.jsonl", [f"other document {i}" for i in range(400)])
    rewritten = written("a", "--overwrite")
    assert [Path(str(plan.index_folder)).exists() for plan in plans] == [False, True]
    assert not Path(rewritten).exists()
    assert folder_of(rewritten, seq_length=8) != Path(str(plans[0].index_folder))

    (both,) = (rewritten.replace("a_text", "b_text"),)
    output = tmp_path / "merged"
    for inputs in ([rewritten, both], [both, rewritten]):  # the same sizes
        assert merge.main([*inputs, "-o", str(output), "--overwrite"]) == 0
        plan = planned(str(output), seq_length=8)
        assert old(plan) == []
        make_index_folder(plan)
    assert len([path for path in (tmp_path / "cache").iterdir() if index_cache.recorded(path)]) == 1


def test_another_tokenizer_is_other_content(tmp_path: Path, tokens_cache: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [f"document {i}" for i in range(400)])
    folders = set()
    for kind in ("small", "prefix"):
        made_by = variant(kind, tmp_path / kind)
        words = ["--hf-tokenizer", str(made_by), "--data-prefix", "a", "--engine", "hf", "--workers", "1"]
        words += ["--input-dir", str(tmp_path / "a.jsonl"), "--output-dir", str(tmp_path), "--overwrite"]
        assert tokenize.main(words) == 0
        folders.add(folder_of(str(tmp_path / "preprocessed"), hf_model_id=str(made_by), seq_length=8))
    assert len(folders) == 2


def test_incomplete_arrays_are_removed(tmp_path: Path) -> None:
    for name, array in (
        ("whole", np.arange(1000)),
        ("cut", np.zeros((10, 2), np.int32)),
        ("new", np.ones(9)),
    ):
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    for name in ("cut", "new"):
        os.truncate(tmp_path / f"{name}.npy", 130)
    (tmp_path / "empty.npy").touch()
    hour_ago = time.time() - 3600
    for name in ("whole", "cut", "empty"):
        os.utime(tmp_path / f"{name}.npy", (hour_ago, hour_ago))
    assert [path.name for path in remove_incomplete(tmp_path)] == ["cut.npy", "empty.npy"]
    assert {path.name for path in tmp_path.iterdir()} == {"whole.npy", "new.npy"}


def test_no_index_is_built_for_a_stream_or_a_job_with_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 50)
    words = ["-M", "nano", "--hf-model-id", TOKENIZER, "--max-steps", "2"]
    stream = [*words, "--data-mode", "stream", "--dataset-dir", str(tmp_path / "rows.jsonl")]
    assert prepare_index.main([*stream, "--split", "1,0,0"]) == 2
    assert "--data-mode stream" in capsys.readouterr().err
    assert prepare_index.main([*words, "--dataset-dir", str(tmp_path / "none")]) == 1
    assert "no index was built" in capsys.readouterr().err


def test_a_file_that_is_no_array_is_removed_however_new_it_is(tmp_path: Path) -> None:
    """numpy.load(allow_pickle=True), as Megatron calls it, unpickles what does not begin as an array."""
    import pickle

    (tmp_path / "a.npy").write_bytes(pickle.dumps({}))
    (tmp_path / "being_written.npy").write_bytes(b"\x93NUM")
    assert [path.name for path in remove_incomplete(tmp_path)] == ["a.npy"]
