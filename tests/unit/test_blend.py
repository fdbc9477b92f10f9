"""Blends: what is accepted, what weights mean, what a run reads of each source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from check_jobs import findings, job, resolved, write_data

from nemolaunch.data import blend
from nemolaunch.facts import look
from nemolaunch.facts.dataset_words import read_blend
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.findings import Finding
from nemolaunch.planning import Plan, make_plan

LONG = blend.BlendSource(path="long", tokens=9_000, documents=10, epoch_tokens=9_000)
SHORT = blend.BlendSource(path="short", tokens=1_000, documents=100, epoch_tokens=1_000)


def of_code(code: str, *words: str, **values: Any) -> Finding:
    (found,) = [f for f in findings("llama3_8b", dataset_dir=words, **values) if f.code == code]
    return found


def test_every_notation_means_the_same(tmp_path: Path) -> None:
    """Percentages sum to 100, shares to 1; paths in a file are relative to it; Megatron's list may have any sum."""
    path = tmp_path / "blend.yaml"
    path.write_text("weights: rows\nsources:\n  - {path: a, weight: 70}\n  - {path: b, weight: 30}\n")
    assert read_blend(("a:0.7,b:0.3",)).sources == ((0.7, "a"), (0.3, "b"))
    assert read_blend(("a:0.7", "b:0.3")).sources == ((0.7, "a"), (0.3, "b"))
    assert read_blend(("7", "a", "3", "b")).sources == ((7.0, "a"), (3.0, "b"))
    assert read_blend(("a", "b")).sources == ((None, "a"), (None, "b"))
    assert read_blend((str(path),)).sources == ((70.0, f"{tmp_path}/a"), (30.0, f"{tmp_path}/b"))
    assert read_blend((str(path),)).unit == "rows"
    for words in (("7", "a", "3", "b"), (str(path),), ("a:0.7,b:0.3",)):
        assert [f.code for f in findings("llama3_8b", dataset_dir=words) if f.code.startswith("blend")] == []


def test_a_file_whose_name_has_a_colon_is_data(tmp_path: Path) -> None:
    name = tmp_path / "a:0.5"
    (tmp_path / "a:0.5.idx").touch()
    assert read_blend((str(name),)).sources == ((None, str(name)),)


@pytest.mark.parametrize(
    ("words", "code", "message", "fixed"),
    [
        (("a:0,b:1",), "blend-weights", "the weight of a is 0; it must be above 0", "b:1"),
        (("a:-0.5,b:1.5",), "blend-weights", "the weight of a is -0.5", "b:1"),
        (("a:nan,b:1",), "blend-weights", "the weight of a is nan", "b:1"),
        (("a:inf,b:1,c:1",), "blend-weights", "the weight of a is inf", "b:0.5,c:0.5"),
        (("a:0.7,b:0.7",), "blend-total", "the weights sum to 1.4", "a:0.5,b:0.5"),
        (("a:0.333,b:0.333,c:0.333",), "blend-total", "the weights sum to 0.999", None),
        (("a:0.5,a:0.5",), "blend-twice", "the blend lists a more than once", "a:1"),
        (("a,b:1",), "blend-unreadable", "'a' is not PATH:WEIGHT", None),
        (("a:half,b:0.5",), "blend-unreadable", "'a:half' is not PATH:WEIGHT", None),
        (("missing.yaml",), "blend-unreadable", "No such file", None),
        (("0.5", "a", "b"), "blend-weights-mixed", "1 of 2 paths have a weight", "a b"),
    ],
)
def test_what_is_not_a_share_of_a_total_is_refused(
    words: tuple[str, ...], code: str, message: str, fixed: str | None
) -> None:
    found = of_code(code, *words)
    assert message in found.message
    if fixed is not None:
        assert f"--dataset-dir {fixed}" in str(found)
    for fix in found.fixes:
        changes: dict[str, Any] = dict(fix.changes)
        assert [f.code for f in findings("llama3_8b", **changes) if f.code.startswith("blend")] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "a blend has a list of `sources`"),
        ("sources: [{path: a}]\n", "is not a source with `path` and `weight`"),
        ("sources: [{path: a, weight: much}]\n", "the weight of a is 'much', not a number"),
        ("weights: bytes\nsources: [{path: a, weight: 1}]\n", "not of 'bytes'"),
        ("shares: 1\nsources: [{path: a, weight: 1}]\n", "unknown keys shares"),
        ("sources: [", "is not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_blend_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "blend.yaml"
    path.write_text(text)
    assert message in of_code("blend-unreadable", str(path)).message


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    there = write_data(tmp_path)
    plan = make_plan(job(dataset_dir=(f"{there}:0.5,{tmp_path}/nothing:0.5",), executor="local"))
    assert [f.message for f in plan.findings if f.code == "data-unreadable"] == [
        f"--dataset-dir: {tmp_path}/nothing is neither a folder nor a .bin/.idx pair"
    ]


def test_rows_become_tokens() -> None:
    """Equal numbers of documents of 900 and of 10 tokens are 900 : 10 in tokens, and back."""
    shares = blend.token_shares([0.5, 0.5], [LONG, SHORT], "rows")
    rows = blend.ledger(shares, [LONG, SHORT], samples=91, seq_length=100)
    assert [round(s.by_tokens, 6) for s in rows] == [round(900 / 910, 6), round(10 / 910, 6)]
    assert [round(s.by_rows, 6) for s in rows] == [0.5, 0.5]
    assert [s.samples for s in rows] == [90, 1]
    assert [s.epochs for s in rows] == [1.0, 0.1]


def test_counts_sum_to_the_run() -> None:
    for samples in range(50):
        rows = blend.ledger([1 / 3, 2 / 3], [LONG, SHORT], samples, 8)
        assert sum(s.samples for s in rows) == samples


def two_sources(tmp_path: Path) -> tuple[str, str]:
    """Write a folder of two files with long documents, and a file with short ones."""
    for name, tokens, documents in (("a/x", 60_000, 30), ("a/y", 20_000, 10), ("b/z", 20_000, 1000)):
        (tmp_path / name).mkdir(parents=True)
        write_data(tmp_path / name, tokens, documents)
        for end in (".bin", ".idx"):
            (tmp_path / f"{name}/text_document{end}").rename(tmp_path / f"{name}{end}")
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_the_plan_has_the_ledger_and_keeps_it(tmp_path: Path) -> None:
    """A folder's weight is divided among its files by size; the ledger is by source."""
    a, b = two_sources(tmp_path)
    asked = job(
        "nano", dataset_dir=(f"{a}:0.5,{b}:0.5",), executor="local", max_steps=100, global_batch_size=4,
        seq_length=100, split="1,0,0",
    )  # fmt: skip
    plan = make_plan(asked)
    assert plan.blend == ((0.375, f"{a}/x"), (0.125, f"{a}/y"), (0.5, f"{b}/z"))
    assert [(s.path, s.samples, s.achieved, s.epochs) for s in plan.ledger] == [
        (a, 200, 0.5, 0.25), (b, 200, 0.5, 1.0)
    ]  # fmt: skip
    assert round(plan.ledger[0].by_rows, 4) == round(1 / 101, 4)
    assert Plan.load(plan.save(tmp_path / "plan.json")).ledger == plan.ledger
    by_rows = make_plan(asked.with_values(blend_by="rows"))
    assert round(by_rows.ledger[0].by_tokens, 4) == round(100 / 101, 4)


def test_without_weights_each_source_is_read_by_its_size(tmp_path: Path) -> None:
    a, b = two_sources(tmp_path)
    asked = job(
        "nano", dataset_dir=(a, b), executor="local", global_batch_size=4, seq_length=100, split="1,0,0"
    )
    assert [round(s.achieved, 1) for s in make_plan(asked).ledger] == [0.8, 0.2]


def test_a_source_that_is_read_often_is_named(tmp_path: Path) -> None:
    a, b = two_sources(tmp_path)
    asked = job(
        "nano", dataset_dir=(f"{a}:0.1,{b}:0.9",), executor="local", max_steps=300, global_batch_size=4,
        seq_length=100, split="1,0,0",
    )  # fmt: skip
    (found,) = [f for f in make_plan(asked).findings if f.code == "data-repeated"]
    assert f"repeats {b} for 5.4 epochs" in found.message


def test_another_blend_on_resume_says_what_will_happen() -> None:
    """70:30 becomes 30:70 after 50 steps of 8: 40 % of 400 samples are skipped, and as many are read again."""
    now = job(dataset_dir=("/data/a:0.3,/data/b:0.7",), max_steps=100, global_batch_size=8)
    run = resolved(now).facts.run
    earlier: dict[str, Any] = {
        "folder": run.folder, "last_checkpoint": "/runs/x-last", "next_step": 50,
        "saved": SavedRun(values={"global_batch_size": 8}, blend=((0.7, "/data/a"), (0.3, "/data/b"))),
    }  # fmt: skip
    found = of_code(
        "run-of-other-data", "/data/a:0.3,/data/b:0.7", max_steps=100, global_batch_size=8,
        changed={"run": type(run)(**earlier)},
    )  # fmt: skip
    assert "it resumes at step 50 with sample 400 of the new order" in found.message
    assert "about 160 samples of /data/a are read again" in found.message
    assert "about 160 samples of /data/b are skipped" in found.message


def test_the_run_folder_keeps_its_blend(tmp_path: Path) -> None:
    a, b = two_sources(tmp_path)
    asked = job("nano", dataset_dir=(f"{a}:0.5,{b}:0.5",), executor="local", output_dir=str(tmp_path / "run"))
    plan = make_plan(asked)
    plan.save()
    assert look(asked).run.saved.blend == plan.blend
