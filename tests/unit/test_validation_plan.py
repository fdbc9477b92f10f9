"""Planning with validation sets: what is found, what is trained on, what is evaluated, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, write_data
from held_out import CORPUS, held_out_corpora

from nemolaunch.cli.commands.plan import main as plan_command
from nemolaunch.cli.views.plan_text import plan_text
from nemolaunch.data.validation_sets import free_name, losses
from nemolaunch.findings import Finding
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two corpora, of which `nemolaunch tokenize` held out a share."""
    return held_out_corpora(tmp_path_factory.mktemp("corpora"))


def planned(folder: Path, *data: Path | str, **values: Any) -> Plan:
    defaults: dict[str, Any] = {
        "model_name": "nano",
        "hf_model_id": TOKENIZER,
        "output_dir": str(folder / "run"),
        "seq_length": 64,
        "global_batch_size": 16,
        "max_steps": 10,
        "precision": "fp32",  # bf16 is slow on some processors, which is a finding
    }
    return make_plan(Job().with_values(**{**defaults, "dataset_dir": data, **values}))


def found(plan: Plan, code: str) -> list[Finding]:
    return [finding for finding in plan.findings if finding.code == code]


def test_held_out_documents_in_a_folder_are_validation_sets(corpora: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, corpora)
    assert [prefix for _, prefix in plan.blend] == [
        str(corpora / f"{name}_text_document") for name in ("en", "zh_hant")
    ]
    assert [(s.name, s.prefixes, s.found) for s in plan.validation_sets] == [
        (name, (str(corpora / f"{name}_validation_text_document"),), True) for name in ("en", "zh_hant")
    ]
    assert plan.job.data.split == "1,0,0"
    assert len(found(plan, "validation-data-found")) == 2
    assert Plan.load(plan.save(tmp_path / "plan.json")).validation_sets == plan.validation_sets
    text = plan_text(plan)
    for line in ("en_text_document, 545,470 tokens", "en       137,184 tokens, 512 of 2,143 samples"):
        assert line in text


def test_held_out_documents_named_as_training_data_are_a_warning(corpora: Path, tmp_path: Path) -> None:
    held_out, other = corpora / "en_validation_text_document", corpora / "zh_hant_text_document"
    held_out.mkdir()  # where Megatron keeps the indices of that file
    plan = planned(tmp_path, held_out, other)
    (finding,) = found(plan, "held-out-trained-on")
    (fix,) = finding.fixes
    assert fix.changes == {"dataset_dir": (str(other),), "validation_data": (f"en={held_out}",)}
    assert not plan.validation_sets
    assert plan.job.data.split == "998,0,0"  # of 115 documents, a thousandth is none
    fixed = planned(tmp_path, **fix.changes)
    assert not fixed.findings
    assert [s.name for s in fixed.validation_sets] == ["en"]


def test_a_name_alone_does_not_make_validation_data(tmp_path: Path) -> None:
    """A file without a manifest is what the user says it is: a folder of training data."""
    for ending in (".bin", ".idx"):
        shutil.move(write_data(tmp_path) + ending, tmp_path / f"x_validation_text_document{ending}")
    plan = planned(tmp_path, tmp_path)
    assert found(plan, "held-out-trained-on")
    assert [prefix for _, prefix in plan.blend] == [str(tmp_path / "x_validation_text_document")]


def test_a_folder_of_held_out_documents_only_is_no_training_data(corpora: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for file in corpora.glob("en_validation_text_document.*"):
        shutil.copy(file, folder)
    (finding,) = found(planned(tmp_path, folder), "data-unreadable")
    assert "only documents held out for validation" in finding.message


def test_named_sets_and_a_split(corpora: Path, tmp_path: Path) -> None:
    """All documents are trained on, unless --split is given: then its share is a set, too."""
    data, news = corpora / "en_text_document", corpora / "zh_hant_text_document"
    plan = planned(tmp_path, data, validation_data=[f"news={news}"])
    assert (plan.job.data.split, [s.name for s in plan.validation_sets]) == ("1,0,0", ["news"])
    assert plan.epoch_samples == (545_470 - 1) // 64
    given = planned(tmp_path, data, validation_data=[f"news={news}"], split="90,10,0", limit_val_batches=4)
    assert [(s.name, s.num_batches) for s in given.validation_sets] == [("held-out", 4), ("news", 4)]
    assert given.validation_sets[0].split == "90,10,0"
    assert given.epoch_samples < plan.epoch_samples


def test_a_folder_is_one_set_and_a_small_set_is_evaluated_whole(corpora: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    prefix = write_data(small, num_tokens=5000)
    sets = [f"all={corpora}", f"small={prefix}"]
    plan = planned(tmp_path, write_data(tmp_path), validation_data=sets)
    whole, few = plan.validation_sets
    assert (len(whole.prefixes), whole.num_batches) == (4, 32)
    assert (few.num_samples, few.num_batches) == (4999 // 64, 4999 // 64 // 16)


def test_sets_are_refused_with_what_is_wrong(corpora: Path, tmp_path: Path) -> None:
    training, links = corpora / "en_text_document", tmp_path / "links"
    links.mkdir()
    for ending in (".bin", ".idx"):
        (links / f"same{ending}").symlink_to(f"{training}{ending}")
    sets = [f"a={links}", f"a b={corpora}", f"c={corpora}/zh_hant_text_documen", f"a={corpora}/x"]
    plan = planned(tmp_path, training, validation_data=sets)
    trained_on = found(plan, "validation-data-trained-on")
    assert f"{links}/same is training data, too" in trained_on[0].message
    assert [suggested(finding)[i] for finding, i in zip(found(plan, "validation-data-name"), (1, 3), strict=True)] == [
        f"a-b={corpora}", f"a-2={corpora}/x"
    ]  # fmt: skip
    missing, never_there = found(plan, "validation-data-unreadable")
    assert suggested(missing)[2] == f"c={corpora}/zh_hant_text_document"
    assert not never_there.fixes


def suggested(finding: Finding) -> tuple[str, ...]:
    words = finding.fixes[0].changes["validation_data"]
    assert isinstance(words, tuple)
    return words


def test_a_set_too_small_for_a_batch_is_refused_or_left_out(corpora: Path, tmp_path: Path) -> None:
    named = planned(tmp_path, corpora, validation_data=[f"x={write_data(tmp_path)}"], global_batch_size=2048)
    (refused,) = found(named, "validation-data-too-short")
    assert "has 1,562 samples of 64 tokens, fewer than one batch of -gbs 2048" in refused.message
    plan = planned(tmp_path, corpora, global_batch_size=2100)
    assert [s.name for s in plan.validation_sets] == ["en"]
    (left_out,) = found(plan, "validation-left-out")
    assert "validation set zh_hant" in left_out.message


def test_streams_take_sets_instead_of_held_out_rows_or_beside_them(corpora: Path, tmp_path: Path) -> None:
    texts = CORPUS / "en.jsonl"
    sets = [f"zh={corpora}/zh_hant_validation_text_document"]
    plan = planned(tmp_path, texts, data_mode="stream", validation_data=sets)
    assert (plan.job.data.split, [s.name for s in plan.validation_sets]) == ("1,0,0", ["zh"])
    both = planned(tmp_path, texts, data_mode="stream", validation_data=sets, split="98,2,0")
    assert (both.job.data.split, [s.name for s in both.validation_sets]) == ("98,2,0", ["zh"])
    assert both.job.logging.limit_val_batches == 32


def test_the_flag_adds_up_and_a_file_takes_a_list(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    en, zh = (corpora / f"{name}_validation_text_document" for name in ("en", "zh_hant"))
    words = ["--model", "nano", "--data", str(corpora / "en_text_document"), "--output-dir", str(tmp_path)]
    words += ["--seq-length", "64", "--global-batch-size", "16"]
    assert plan_command([*words, "--validation-data", f"en={en}", "--validation-data", f"zh={zh}"]) == 0
    flags = capsys.readouterr().out
    config = tmp_path / "job.yaml"
    config.write_text(f"validation_data:\n- en={en}\n- zh={zh}\n")
    assert plan_command([*words, "--config", str(config)]) == 0
    for text in (flags, capsys.readouterr().out):
        assert "validation    en  137,184 tokens, 512 of 2,143 samples" in text
        assert "              zh  133,310 tokens, 512 of 2,082 samples" in text


def test_names_of_found_sets_are_valid_and_distinct() -> None:
    assert free_name("my corpus, new", []) == "my-corpus-new"
    assert free_name("web", ["web", "web-2"]) == "web-3"
    assert free_name("語料", []) == "validation"


def test_losses_by_set_in_a_row_of_the_metrics_file() -> None:
    assert losses({"step": 3, "val_loss": 2.0, "val_loss/a": 2.0, "val_loss/b/c": 3.0, "val_loss/d": "nan"}) == {
        "a": 2.0, "b/c": 3.0
    }  # fmt: skip
