"""What a job may change when it resumes: every flag has a place in the table, and each reported change a finding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from check_jobs import findings, job, resolved

from nemolaunch.check.resume_table import TABLE, Effect, generic
from nemolaunch.facts import EarlierRun
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.findings import Finding, Severity
from nemolaunch.job import Job, specs
from nemolaunch.resolve.resuming import Resumption

OTHER: dict[str, Any] = {
    "seq_length": 2048,
    "global_batch_size": 64,
    "precision": "fp32",
    "fp8": True,
    "seed": 7,
}


def earlier(architecture: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    """Facts with a run that was trained with these values to step 50."""
    saved = SavedRun(values=values, architecture=architecture or {})
    return {"run": EarlierRun(folder="/runs/x", last_checkpoint="/runs/x/last", next_step=50, saved=saved)}


def found(code: str, *, before: dict[str, Any], **now: Any) -> list[Finding]:
    """The findings with that code of a job that resumes a run."""
    return [f for f in findings(**now, changed=before) if f.code == code]


def test_every_field_has_its_place() -> None:
    assert TABLE.keys() == {spec.name for spec in specs()}


def test_the_table_names_findings_that_exist() -> None:
    from nemolaunch.check import RULES

    assert {row.code for row in TABLE.values()} <= RULES.keys()


@pytest.mark.parametrize("name", sorted(OTHER))
def test_a_reported_change_is_reported(name: str) -> None:
    before = {"max_steps": 100, name: OTHER[name]}
    (finding,) = found("resume-changes", before=earlier(**before), max_steps=100)
    assert finding.severity is Severity.WARNING
    assert finding.fixes[0].changes == {name: OTHER[name]}
    assert TABLE[name].effect is Effect.REPORTED


def test_nothing_is_reported_of_a_run_that_continues_unchanged() -> None:
    now = resolved(job(max_steps=100))
    before = earlier(architecture=dataclasses.asdict(now.model.architecture), **now.job.values())
    codes = [finding.code for finding in findings(max_steps=100, changed=before)]
    assert not [code for code in codes if code.startswith(("run-", "resume-", "lr-", "schedule-"))]


@pytest.mark.parametrize(
    ("before", "now", "severity"),
    [("98,1,1", "90,9,1", Severity.WARNING), ("90,9,1", "98,1,1", Severity.ERROR)],
    ids=["less training", "more training"],
)
def test_validation_documents_stay_out_of_training(before: str, now: str, severity: Severity) -> None:
    (finding,) = found("run-of-other-split", before=earlier(split=before), split=now)
    assert finding.severity is severity
    assert ("--force run-of-other-split" in finding.message) is (severity is Severity.ERROR)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotary_base", 10_000.0),
        ("scale_factor", 8.0),
        ("window_size", (4095, 0)),
        ("layernorm_epsilon", 1e-6),
        ("activation_func", "gelu"),
        ("add_qkv_bias", True),
        ("rotary_percent", 0.5),
    ],
)
def test_a_model_of_the_same_shape_that_computes_something_else_is_refused(field: str, value: Any) -> None:
    architecture = dataclasses.asdict(resolved(job()).model.architecture)
    plain = list(value) if isinstance(value, tuple) else value
    (finding,) = found("run-of-other-model", before=earlier(architecture={**architecture, field: plain}))
    assert finding.severity is Severity.ERROR
    assert field in finding.message


@pytest.mark.parametrize(("interval", "count"), [(4, 0), (3, 1)])
def test_fields_beyond_the_architecture_are_compared(interval: int, count: int) -> None:
    """NeMo's default is 4: `Llama4Config.nope_layer_interval`."""
    architecture = dataclasses.asdict(resolved(job("llama4_e16")).model.architecture)
    overrides = {"nope_layer_interval": interval}
    saved = SavedRun(values={}, architecture=architecture, recipe="llama4_e16", overrides=overrides)
    run = EarlierRun(folder="/runs/x", last_checkpoint="/runs/x/last", next_step=50, saved=saved)
    other = found("run-of-other-model", before={"run": run}, model_name="llama4_e16")
    assert ["nope_layer_interval" in finding.message for finding in other] == [True] * count


def test_data_of_the_same_name_and_other_content_are_reported() -> None:
    saved = SavedRun(values={}, digests={"/data/text_document": "a"})
    run = EarlierRun(folder="/runs/x", last_checkpoint="/runs/x/last", next_step=50, saved=saved)
    (file,) = resolved(job()).facts.data
    same = {"run": run, "data": (dataclasses.replace(file, digest="a"),)}
    other = {"run": run, "data": (dataclasses.replace(file, digest="b"),)}
    assert not found("run-of-other-data", before=same)
    (finding,) = found("run-of-other-data", before=other)
    assert "/data/text_document" in finding.message


def test_generic_rows_need_no_rule_of_their_own() -> None:
    assert generic()
    assert all(row.effect is Effect.REPORTED for row in generic().values())


@pytest.mark.parametrize(
    "objective", [{}, {"objective": "mlm", "mask_token": "<|reserved_special_token_3|>"}]
)
def test_the_copy_of_a_tokenizer_in_the_run_has_its_digest(tmp_path: Path, objective: dict[str, str]) -> None:
    """Otherwise every resumed run would be refused as one of another tokenizer."""
    from check_jobs import TOKENIZER, write_data

    from nemolaunch.facts import look
    from nemolaunch.launching.prepare import prepare
    from nemolaunch.planning import make_plan

    values = {
        "model_name": "aixsim-60m", "hf_model_id": TOKENIZER, "dataset_dir": [write_data(tmp_path)],
        "output_dir": str(tmp_path / "run"), "global_batch_size": 4, "num_gpus": 1,
        **objective,
    }  # fmt: skip
    prepare(make_plan(Job().with_values(**values)))
    facts = look(Job().with_values(**values))
    assert facts.tokenizer is not None
    assert facts.run.saved.tokens_digest == facts.tokenizer.tokens_digest is not None


def test_the_time_left_is_that_of_the_run_so_far(tmp_path: Path) -> None:
    """50 of 100 steps of 16 sequences of 256 tokens, at 8,192 tokens/s: 25 seconds."""
    from report_runs import start, step, write_run

    from nemolaunch.cli.views.schedule import resume_lines
    from nemolaunch.facts.saved_values import saved_run
    from nemolaunch.planning import Plan
    from nemolaunch.run.folder import RunDir

    run = RunDir(write_run(tmp_path / "run", [start(), *(step(n, 9.0) for n in range(1, 51))]))
    assert saved_run(run).tokens_per_s == 8192.0
    plan = Plan.load(run.plan)
    there = Resumption(checkpoint="/c", step=50, rate_before=None, rate=None, tokens_per_s=8192.0)
    (line,) = resume_lines(dataclasses.replace(plan, resumes=there))
    assert "at step 50 of 100, 25.0 s left" in line
