"""Findings on the command line: reported all at once, their format, `--force`, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from check_jobs import TOKENIZER, write_data

from nemolaunch.cli.commands import plan as plan_command
from nemolaunch.cli.commands import pretrain
from nemolaunch.planning import Plan


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the flags of a valid job on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    data = write_data(tmp_path)
    return [
        "-M",
        "nano",
        "--dataset-dir",
        data,
        "--hf-model-id",
        TOKENIZER,
        "-gbs",
        "16",
        "--seq-length",
        "256",
    ]


def test_a_valid_job_passes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain.main([*words, "--dry-run"]) == 0
    assert "error" not in capsys.readouterr().err


def test_all_findings_are_reported_at_once_most_severe_first(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["-TP", "5", "-PP", "7", "-SP", "--wandb", "--recompute-granularity", "full", "-ETP", "5"]
    assert pretrain.main([*words, *bad, "--dry-run"]) == 1
    lines = capsys.readouterr().err.splitlines()
    kinds = [line.split("[")[0] for line in lines if "[" in line]
    assert kinds == sorted(kinds, key=["error", "warning", "note"].index)
    for code in ("heads-by-tp", "layers-by-pp", "wandb-key", "recompute-incomplete", "etp-without-experts"):
        assert any(f"[{code}]" in line for line in lines)


def test_the_advice_names_the_nearest_values(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    slurm = ["--executor", "slurm", "-N", "2", "-G", "8", "-gbs", "2047", "--max-steps", "1"]
    assert pretrain.main([*words, *slurm, "--dry-run"]) == 1
    assert (
        "error[batch-by-data-parallel]: -gbs 2047 is not a multiple of MBS·DP = 1·16 = 16; use 2032 or 2048\n"
        in capsys.readouterr().err
    )


def test_force_ignores_one_named_error_and_the_plan_records_it(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = [*words, "--wandb", "-ETP", "1"]
    assert pretrain.main([*bad, "--dry-run"]) == 1
    assert pretrain.main([*bad, "--dry-run", "--force", "wandb-key"]) == 0
    told = capsys.readouterr()
    assert "warning, forced[wandb-key]" in told.err
    assert "error ignored by --force: wandb-key" in told.out
    assert plan_command.main([*bad, "--force", "wandb-key", "--format", "json", "-o", "plan.json"]) == 0
    assert json.loads(Path("plan.json").read_text())["forced"] == ["wandb-key"]


def test_force_ignores_nothing_else(words: list[str]) -> None:
    assert pretrain.main([*words, "--wandb", "-gbs", "-1", "--dry-run", "--force", "wandb-key"]) == 1


def test_a_repeated_plan_keeps_what_was_forced(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nemolaunch.job import Job
    from nemolaunch.planning import make_plan

    job = Job().with_values(
        model_name="nano",
        dataset_dir=[words[3]],
        hf_model_id=TOKENIZER,
        global_batch_size=16,
        seq_length=256,
        wandb=True,
    )
    saved = make_plan(job, force=["wandb-key"]).save(tmp_path / "saved.json")
    assert Plan.load(saved).forced == ("wandb-key",)
    assert pretrain.main(["--plan", str(saved), "--dry-run"]) == 0


def test_an_unknown_code_is_rejected_with_the_nearest(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain.main([*words, "--dry-run", "--force", "wandb-keys"]) == 2
    assert "did you mean wandb-key?" in capsys.readouterr().err


def test_findings_as_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain.main([*words, "-gbs", "15", "-G", "2", "--dry-run", "--format", "json"]) == 1
    (finding,) = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["severity"] == "error"]
    assert finding["code"] == "batch-by-data-parallel"
    assert finding["fixes"] == [{"global_batch_size": 14}, {"global_batch_size": 16}]
