"""Values that follow from others are computed again when a saved plan, or its YAML, is used with other flags."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, findings, job, resolved, write_data
from test_resume_rules import earlier, found

from nemolaunch.cli.commands import generate_config, resume
from nemolaunch.cli.commands import plan as plan_command
from nemolaunch.cli.parsing.flags import job_from
from nemolaunch.cli.parsing.saved_plan import job_of_plan
from nemolaunch.findings import Severity
from nemolaunch.job import Optimizer
from nemolaunch.planning import Plan, make_plan


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder to work in, with data; returns the data's prefix."""
    monkeypatch.chdir(tmp_path)
    return write_data(tmp_path, num_tokens=4_000_000, num_documents=1000)


def words(data: str, *more: str) -> list[str]:
    usual = ["-M", "aixsim-60m", "--dataset-dir", data, "--hf-model-id", TOKENIZER, "-gbs", "8", "-G", "1"]
    return [*usual, "--max-steps", "100", *more]


def from_yaml(data: str, *more: str, **now: Any) -> Optimizer:
    assert generate_config.main([*words(data, *more), "-o", "job.yaml"]) == 0
    return make_plan(job_from(now, Path("job.yaml"))).job.optimizer


def saved(data: str, **given: Any) -> Path:
    """The run folder of a plan."""
    values = {"model_name": "aixsim-60m", "dataset_dir": (data,), "hf_model_id": TOKENIZER, "num_gpus": 1}
    plan = make_plan(job_from({**values, "global_batch_size": 8, "max_steps": 100, **given}, None))
    plan.save()
    return plan.run.root


def again(run: Path, **now: Any) -> Plan:
    asked, model, origins, _ = job_of_plan(run, now)
    return make_plan(asked, model=model, given=origins)


def test_a_yaml_file_can_be_extended(data: str) -> None:
    o = from_yaml(data, "--lr", "1e-3", max_steps=400, lr=2e-3)
    assert (o.decay_steps, o.min_lr) == (400, 2e-4)


def test_a_yaml_file_keeps_what_was_given(data: str) -> None:
    o = from_yaml(data, "--decay-steps", "90", "--min-lr", "1e-5", max_steps=400, lr=2e-3)
    assert (o.decay_steps, o.min_lr) == (90, 1e-5)


def test_a_saved_plan_as_configuration_can_be_extended(data: str) -> None:
    run = saved(data)
    assert make_plan(job_from({"max_steps": 400}, run / "plan.json")).job.optimizer.decay_steps == 400


@pytest.mark.parametrize(
    ("given", "now", "warmup", "decay"),
    [
        ({"warmup_ratio": 0.2}, {}, 80, 400),
        ({"warmup_ratio": 0.2}, {"warmup_steps": 7}, 7, 400),
        ({"constant_steps": 10, "warmup_steps": 3}, {}, 3, 390),
        ({"constant_steps": 10, "warmup_steps": 3}, {"decay_steps": 200}, 3, 200),
    ],
)
def test_shares_and_rests_follow_a_new_length(
    given: dict[str, Any], now: dict[str, Any], warmup: int, decay: int, data: str
) -> None:
    o = again(saved(data, **given), max_steps=400, **now).job.optimizer
    assert (o.warmup_steps, o.decay_steps) == (warmup, decay)


def test_batches_of_a_validation_follow_too(data: str) -> None:
    run = saved(data, limit_val_batches=1000)
    assert 0 < again(run, max_steps=400).job.logging.limit_val_batches < 1000


def test_a_plan_without_a_list_of_computed_fields_can_be_extended(data: str) -> None:
    """Until 0.3, a decay ended with the run, and plans only had origins."""
    run = saved(data)
    content = json.loads((run / "plan.json").read_text())
    for name in ("computed", "converted"):
        del content[name]
    del content["values"]["decay_steps"]
    (run / "plan.json").write_text(json.dumps(content))
    assert again(run, max_steps=400).job.optimizer.decay_steps == 400


@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_a_moved_run_continues_where_it_is(data: str, copied: bool, tmp_path: Path) -> None:
    run, place = saved(data), tmp_path / "elsewhere"
    (shutil.copytree if copied else shutil.move)(run, place)
    assert job_of_plan(place, {})[0].launch.output_dir == str(place)
    link = tmp_path / "link"
    link.symlink_to(place)
    assert job_of_plan(link, {"experiment": "other"})[0].launch.experiment == "other"


def test_a_constant_rate_does_not_complain_of_flags_that_nobody_gave(data: str) -> None:
    plan = again(saved(data), lr_schedule="constant")
    assert "schedule-flags" not in {finding.code for finding in plan.findings}


def test_settings_that_were_empty_are_dropped(data: str) -> None:
    before = earlier(max_steps=100, set=[])
    (finding,) = found(
        "resume-changes", before=before, max_steps=100, set=("model.config.hidden_dropout=0.1",)
    )
    assert "had no --set" in finding.message
    assert finding.fixes[0].changes == {"set": ()}


def test_clipping_is_reported_even_if_the_checkpoint_keeps_the_schedule() -> None:
    now = resolved(job(max_steps=100))
    before = earlier(**{**now.job.values(), "clip_grad": 5.0, "weight_decay": 0.3})
    (finding,) = found("run-of-other-optimizer", before=before, max_steps=100, resume_schedule="checkpoint")
    assert "--clip-grad from 5 to 1" in finding.message
    assert "--weight-decay" not in finding.message
    assert [fix.changes for fix in finding.fixes] == [{"clip_grad": 5.0}]


def test_other_dropout_does_not_make_another_model() -> None:
    now = resolved(job(max_steps=100))
    architecture = {**dataclasses.asdict(now.model.architecture), "hidden_dropout": 0.1}
    (finding,) = found("run-of-other-model", before=earlier(architecture, max_steps=100), max_steps=100)
    assert finding.severity is Severity.WARNING


def test_a_fix_of_the_warmup_is_in_the_unit_that_was_given() -> None:
    (finding,) = [f for f in findings(max_steps=100, warmup_ratio=1.0) if f.code == "warmup-too-long"]
    assert finding.fixes[0].changes == {"warmup_ratio": 0.1}


def test_constant_steps_that_take_the_whole_run_are_named() -> None:
    (finding,) = [f for f in findings(max_steps=100, constant_steps=130) if f.code == "warmup-too-long"]
    assert finding.message.startswith("--constant-steps 130 ")


@pytest.mark.parametrize("flag", ["--lr", "--min-lr"])
def test_a_rate_that_is_no_number_is_an_error(
    flag: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_command.main(words(data, flag, "nan")) == 1
    printed = capsys.readouterr()
    assert f"{flag} nan is out of range" in printed.out + printed.err


@pytest.mark.parametrize("words_given", [["--resume", "never"], ["--resume=never"]])
def test_resume_takes_its_flag_in_both_spellings(
    words_given: list[str], data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume.main([str(saved(data)), *words_given, "--dry-run"]) == 0
    assert "--resume              never" in capsys.readouterr().out
