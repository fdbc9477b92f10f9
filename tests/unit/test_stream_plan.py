"""Streams in a plan: sources, length and readers; and the mixtures in examples/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stream_support import texts_of, write

from nemolaunch.cli.parsing.flags import job_from
from nemolaunch.cli.views.plan_text import stream_lines
from nemolaunch.data.stream_spec import StreamSpec
from nemolaunch.facts import look
from nemolaunch.facts.dataset_words import read_stream
from nemolaunch.findings import errors
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan

ROOT = Path(__file__).parents[2]
MIXTURES = sorted((ROOT / "examples" / "mixtures").glob("*.yaml"))
TOKENIZER = str(ROOT / "examples" / "tokenizer")


def planned(words: str, **values: object) -> Plan:
    defaults = {
        "model_name": "demo-llama",
        "hf_model_id": TOKENIZER,
        "data_mode": "stream",
        "global_batch_size": 16,
    }
    return make_plan(Job().with_values(**{**defaults, "dataset_dir": [words], **values}))


@pytest.mark.parametrize("path", MIXTURES, ids=lambda p: p.stem)
def test_the_mixtures_sum_to_one_and_name_licences_and_sizes(path: Path) -> None:
    stream = read_stream((str(path),))
    assert stream.error is None
    assert sum(source.weight for source in stream.sources) == pytest.approx(1.0)
    assert all(source.tokens and source.license and source.url for source in stream.sources)
    plan = planned(str(path), max_tokens=10**9)
    assert errors(plan.findings) == ()
    assert "HF_HUB_OFFLINE" not in plan.environment


def test_the_key_of_the_text_is_read_under_its_earlier_name(tmp_path: Path) -> None:
    """`column` occurs in users' mixtures and in the plans of existing run folders."""
    mixture = tmp_path / "m.yaml"
    for name in ("text_key", "column"):
        mixture.write_text(f"sources: [{{path: a, {name}: content}}]\n")
        assert read_stream((str(mixture),)).sources[0].text_key == "content"
    saved = {"unit": None, "sources": [{"name": "a", "paths": ["/a"], "column": "content"}]}
    assert StreamSpec.from_values(saved).sources[0].text_key == "content"


def test_a_relative_path_starts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "texts" / "a.parquet", texts_of("a", 5))
    monkeypatch.chdir(tmp_path)
    plan = planned("texts", max_steps=1)
    assert plan.stream is not None
    assert plan.stream["sources"][0]["paths"] == [str(tmp_path / "texts")]
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").stream == plan.stream
    assert Plan.load(tmp_path / "plan.json").outlook == plan.outlook


def test_planning_with_given_facts_never_looks_at_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--ssh` the facts are those of another machine: asking this one would answer for the wrong disk."""
    for name in ("texts", "set"):
        write(tmp_path / "data" / name / "a.parquet", texts_of(name, 5))
    mixture = tmp_path / "data" / "mixture.yaml"
    mixture.write_text(
        "sources:\n  - {path: texts/*.parquet, weight: 0.5}\n  - {dataset: set, weight: 0.5, column: text}\n"
    )
    job = Job().with_values(
        model_name="demo-llama", hf_model_id=TOKENIZER, data_mode="stream", global_batch_size=16, max_steps=1,
        dataset_dir=[str(mixture)], output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    facts = look(job)
    expected = make_plan(job, facts=facts)  # and whatever is read once of the package itself
    shutil.rmtree(tmp_path / "data")

    def looked(*_: object, **__: object) -> None:
        raise AssertionError("the plan looked at the disk")

    with monkeypatch.context() as patched:
        for name in ("stat", "lstat", "scandir", "listdir", "access", "open", "getcwd", "readlink"):
            patched.setattr(os, name, looked)
        patched.setattr("builtins.open", looked)
        plan = make_plan(job, facts=facts)
    assert plan == expected
    assert errors(plan.findings) == ()
    assert plan.stream is not None
    assert plan.stream["sources"][0]["paths"] == [str(tmp_path / "data" / "texts" / "*.parquet")]
    assert plan.stream["sources"][1]["dataset"] == str(tmp_path / "data" / "set")
    assert plan.environment["HF_HUB_OFFLINE"] == "1"


def test_sizes_tell_epochs_and_the_length(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name / "a.parquet", texts_of(name, 5))
    mixture = tmp_path / "m.yaml"
    mixture.write_text(
        "sources:\n  - {name: a, path: a, weight: 0.75, tokens: 3M}\n  - {name: b, path: b, weight: 0.25, tokens: 2M}\n"
    )
    plan = planned(str(mixture), max_tokens=8_000_000)
    assert [source.epochs for source in plan.outlook] == pytest.approx([2.0, 1.0], rel=0.01)
    first = planned(str(mixture), stopping_strategy="first-exhausted")
    assert first.job.get("max_steps") == 4_000_000 // (16 * 256)
    every = planned(str(mixture), stopping_strategy="all-exhausted")
    assert every.job.get("max_steps") == 8_000_000 // (16 * 256)


def test_a_wrong_key_or_weight_is_reported_with_its_fix(tmp_path: Path) -> None:
    for ending in ("parquet", "jsonl", "jsonl.gz", "jsonl.zst"):
        write(tmp_path / ending / f"a.{ending}", texts_of("a", 5), column="content")
        (found,) = errors(planned(str(tmp_path / ending), max_steps=1).findings)
        assert found.code == "stream-column"
        assert found.fixes[0].changes == {"text_key": "content"}
        assert errors(planned(str(tmp_path / ending), max_steps=1, text_key="content").findings) == ()
    words = f"{tmp_path}/parquet:0.5,{tmp_path}/jsonl:0.6"
    (found,) = errors(planned(words, max_steps=1, text_key="content").findings)
    assert found.code == "blend-total"
    (words,) = found.fixes[0].changes["dataset_dir"]  # type: ignore[misc]
    assert errors(planned(words, max_steps=1, text_key="content").findings) == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "tokenised",
            "no file of a supported format: .jsonl, .*; it has .bin/.idx files, which need --data-mode indexed",
        ),
        ("empty.jsonl", r"empty.jsonl is empty: its 1 file has 0 bytes"),
        ("good.jsonl:0.5,empty.jsonl:0.5", "source empty.jsonl: .* is empty"),
        ("hf://models/owner/name", "hf://models/owner/name does not start with hf://datasets/OWNER/NAME"),
    ],
)
def test_what_is_not_a_stream_is_reported_before_the_start(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a folder with Megatron's cache, whose descriptions end in .txt."""
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "tokenised" / "a_text_document" / "cache" / "GPTDataset_indices" / "0-description.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("{}")
    (tmp_path / "tokenised" / "a_text_document.idx").touch()
    (tmp_path / "empty.jsonl").touch()
    write(tmp_path / "good.jsonl", texts_of("a", 5))
    (found,) = errors(planned(words, max_steps=1).findings)
    assert found.code == "stream-source"
    assert re.search(said, found.message)


def test_a_source_without_size_is_named_if_all_epochs_are_unknown_because_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    plan = planned("examples/mixtures/zyda2-stack-finemath.yaml", max_tokens=10**9)
    assert any("stack-v2 does not give `tokens` and `rows`" in line for line in stream_lines(plan))
    plan = planned("examples/mixtures/slimpajama-starcoder.yaml", max_tokens=10**12)
    assert [source.epochs for source in plan.outlook] == pytest.approx([1.116, 1.2], abs=0.01)


def test_the_number_of_readers_is_fixed(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", texts_of("a", 5))
    (found,) = errors(planned(str(tmp_path), max_steps=1, num_gpus=2, stream_readers=5).findings)
    for fix in found.fixes:
        after = planned(str(tmp_path), **{"max_steps": 1, "num_gpus": 2, **fix.changes})
        assert errors(after.findings) == ()


def test_planning_a_stream_needs_no_libraries_except_for_parquet(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", texts_of("a", 5))
    words = [
        "plan",
        "-M",
        "demo-llama",
        "--data-mode",
        "stream",
        "--dataset-dir",
        str(tmp_path),
        "--max-steps",
        "1",
    ]
    code = (
        f"import sys; from nemolaunch.cli.main import main; main({[*words, '--hf-model-id', TOKENIZER]!r});"
        "print([m for m in ('numpy', 'pyarrow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_example_of_64_nodes_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = make_plan(job_from({}, Path("examples/llama32-1b-64-nodes.yaml")))
    assert errors(plan.findings) == ()
    assert plan.world_size == 512
    assert plan.tokens_per_step == 12_582_912
    assert plan.estimate is not None
    assert plan.job.stream.stream_readers is not None
    assert plan.job.stream.stream_readers % plan.data_parallel_size == 0
