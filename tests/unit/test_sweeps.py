"""Sweeps: which runs they are, planned and checked as one, started, resumed, compared."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, write_data
from report_runs import start, step

from nemolaunch.api.launch import launch as launch_run
from nemolaunch.api.run import Run
from nemolaunch.api.sweep import Sweep, planned
from nemolaunch.cli.main import main
from nemolaunch.errors import UsageError
from nemolaunch.job import Job
from nemolaunch.planning import Plan
from nemolaunch.sweeps import execution
from nemolaunch.sweeps.folder import read_record, write_record
from nemolaunch.sweeps.ladder import fitted, ladder_points
from nemolaunch.sweeps.planned import RunPlan, check_finished, check_parallel
from nemolaunch.sweeps.points import grid, parsed_axes
from nemolaunch.sweeps.results import results_of

SIZES = ("aixsim-60m", "aixsim-200m", "aixsim-400m", "aixsim-600m")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "data").mkdir()
    return Job(
        model="nano", tokenizer=TOKENIZER, data=write_data(tmp_path / "data"), output_dir=tmp_path / "sweep", gbs=16,
        seq_length=256, max_steps=100, precision="fp32", limit_val_batches=0,
    )  # fmt: skip


def flags(job: Job) -> list[str]:
    return [
        *(
            "-M",
            "nano",
            "--hf-model-id",
            str(TOKENIZER),
            "--dataset-dir",
            *job.data.dataset_dir,
            "--precision",
            "fp32",
        ),
        *(
            "--output-dir",
            str(job.launch.output_dir),
            "-gbs",
            "16",
            "--seq-length",
            "256",
            "--max-steps",
            "100",
        ),
        *("--limit-val-batches", "0"),
    ]


def write_result(
    run: RunPlan, loss: float | None, *, val_loss: float | None = None, failed: bool = False
) -> None:
    """Leave behind what a run that ended leaves."""
    steps, plan = run.plan.max_steps, run.plan
    plan.save()
    rows: list[dict[str, Any]] = [{**start(), "max_steps": steps}]
    if loss is not None:
        rows.append({**step(steps, loss), "tokens": run.tokens})
    if val_loss is not None:
        rows.append({"step": steps, "time": 2000.0 + steps, "val_loss": val_loss})
    plan.run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if failed:
        plan.run.logs.mkdir(exist_ok=True)
        plan.run.local_end.write_text(json.dumps({"state": "failed", "detail": "out of memory"}))
    else:
        plan.run.finished.write_text(json.dumps({"step": steps}))


def test_values_are_read_as_the_flags_read_them() -> None:
    axes = parsed_axes(
        ["lr=1e-3,3e-4", "-TP=1,2", "max-tokens=1M,2M", "warmup-steps=none,10", "sequence_parallel=true,no"]
    )
    assert axes["lr"] == [1e-3, 3e-4]
    assert axes["tensor_model_parallel_size"] == [1, 2]
    assert axes["max_tokens"] == [1_000_000, 2_000_000]
    assert axes["warmup_steps"] == [None, 10]
    assert axes["sequence_parallel"] == [True, False]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["lr"], "write it as FIELD=VALUE,VALUE"),
        (["lr=1e-3,fast"], "--lr takes a number, not 'fast'"),
        (["seed=1.5"], "--seed takes a whole number, not '1.5'"),
        (["lrr=1"], "did you mean lr"),
        (["experiment=a,b"], "--experiment is the same for all runs"),
        (["lr=1e-3", "lr=1e-4"], "--lr is swept twice"),
    ],
)
def test_wrong_values_are_refused(words: list[str], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed_axes(words)
    assert why in str(caught.value)


def test_all_combinations_have_names_that_say_their_values() -> None:
    points = grid({"lr": [1e-3, 3e-4], "seed": [1, 2]})
    assert [point.name for point in points] == [
        "lr-0.001_seed-1",
        "lr-0.001_seed-2",
        "lr-0.0003_seed-1",
        "lr-0.0003_seed-2",
    ]
    assert [point.name for point in grid({"weight_decay": [1e7, 1e-7]})] == [
        "weight-decay-1e07",
        "weight-decay-1e-07",
    ]
    with pytest.raises(UsageError, match="two runs of the sweep are the same"):
        grid({"lr": [1e-3, 0.001]})
    with pytest.raises(UsageError, match="more than 1,000"):
        grid({"seed": list(range(1, 102)), "lr": [i / 1e4 for i in range(1, 11)]})


def test_each_plan_is_that_of_the_job_with_these_flags(job: Job) -> None:
    from nemolaunch.planning import make_plan

    sweep = planned(job, grid({"lr": [1e-3, 3e-4], "max_tokens": ["1M"]}), here=False)
    for run in sweep.runs:
        alone = make_plan(
            job.with_values(
                lr=run.point.changes["lr"], max_tokens="1M", max_steps=None, output_dir=run.plan.folder,
                experiment=f"sweep.{run.point.name}",
            )
        )  # fmt: skip
        assert run.plan.job == alone.job
        assert run.plan.architecture == alone.architecture
    assert len({run.plan.folder for run in sweep.runs}) == 2


def test_a_finding_is_said_once_with_its_runs_and_stops_all(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", *flags(job), "-G", "2", "--sweep", "tp=2,3", "--sweep", "seed=1,2"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.count("error[heads-by-tp]") == 1
    assert "(TP-3_seed-1, TP-3_seed-2)" in said
    assert "2 of 4 runs have errors; nothing was started" in said
    assert not Path(str(job.launch.output_dir)).exists()


def test_a_list_of_runs(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs.yaml"
    runs.write_text("- {lr: 1e-3, weight-decay: 0.1}\n- {lr: 3e-4, seed: 2}\n")
    assert main(["sweep", *flags(job), "--sweep-list", str(runs), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "lr-0.001_weight-decay-0.1" in said
    assert "lr-0.0003_seed-2" in said
    runs.write_text("- {lr: fast}\n- 3\n")
    assert main(["sweep", *flags(job), "--sweep-list", str(runs), "--dry-run"]) == 2


BRIDGE = Path(__file__).parents[2] / ".venv-bridge" / "bin" / "python"
# In place of the interpreter of Megatron-Bridge. Of a pair, each run waits until the other one has started
LIGHT = """#!/bin/sh
for plan; do :; done
run=$(dirname "$plan"); sweep=$(dirname "$run"); name=$(basename "$run")
touch "$sweep/began-$name"
with() { until [ -e "$sweep/began-$1" ]; do sleep 0.05; done; }
ls "$sweep" | grep -c going- >> "$sweep/others"; touch "$sweep/going-$name"
case $name in
seed-1) with seed-2 ;;
seed-2) with seed-1; while :; do sleep 0.05; done ;;
seed-3) rm "$sweep/going-$name"; exit 3 ;;
esac
echo '{"step": 100}' > "$run/finished.json"; rm "$sweep/going-$name"
"""


@pytest.mark.skipif(not BRIDGE.exists(), reason="needs `make install-bridge`")
def test_runs_start_as_there_is_room_and_neither_a_failure_nor_a_cancelled_one_stops_the_others(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Processes that only pretend to train, two at a time, one of which `cancel` ends."""
    light = tmp_path / "python"
    light.write_text(LIGHT)
    light.chmod(0o755)
    sweep, told = planned(job.with_values(backend="bridge"), grid({"seed": [1, 2, 3, 4, 5]}), here=False), []
    cancelling: list[subprocess.Popen[bytes]] = []

    def tell(text: str) -> None:
        told.append(text)
        if text == "seed-4 finished step 100":  # in the other slot, past a failure
            words = [sys.executable, "-m", "nemolaunch", "cancel", f"{sweep.folder}/seed-2"]
            cancelling.append(subprocess.Popen(words))

    def launch(plan: Plan, gpus: Sequence[str] | None) -> Run:
        return launch_run(dataclasses.replace(plan, python=str(light)), gpus=gpus)

    with execution.locked(sweep.folder):
        outcome = execution.run_here(sweep.runs, launch, tell, parallel=2)
    assert cancelling[0].wait() == 0
    assert (outcome.finished, outcome.stopped) == (["seed-1", "seed-4", "seed-5"], ["seed-2"])
    assert list(outcome.failed) == ["seed-3"]
    assert any(line.startswith("seed-3 failed: the job failed.") for line in told)
    assert "seed-2 was stopped: cancelled by the user" in told
    others = (sweep.folder / "others").read_text().split()
    assert len(others) == 5
    assert {*others} <= {"0", "1"}
    assert "cancelled; all its processes have ended" in capfd.readouterr().out
    runs = execution.sorted_runs(sweep.runs, retry_failed=False)  # a stopped one is continued
    assert [[r.point.name for r in group] for group in (runs.to_start, runs.failed)] == [
        ["seed-2"],
        ["seed-3"],
    ]


def test_what_is_done_is_kept_and_failures_are_only_retried_if_asked_for(job: Job) -> None:
    sweep = planned(job, grid({"seed": [1, 2, 3]}), here=False)
    write_result(sweep.runs[0], 3.0)
    write_result(sweep.runs[1], None, failed=True)
    again = planned(job, grid({"seed": [1, 2, 3, 4]}), here=False)
    runs = execution.sorted_runs(again.runs, retry_failed=False)
    assert [r.point.name for r in runs.finished] == ["seed-1"]
    assert [r.point.name for r in runs.failed] == ["seed-2"]
    assert [r.point.name for r in runs.to_start] == ["seed-3", "seed-4"]
    retried = execution.sorted_runs(again.runs, retry_failed=True)
    assert [r.point.name for r in retried.to_start] == ["seed-2", "seed-3", "seed-4"]
    check_finished(again)
    other = planned(job.with_values(weight_decay=0.3), grid({"seed": [1, 2]}), here=False)
    with pytest.raises(UsageError, match=r"seed-1 finished with other flags: --weight-decay .* → 0\.3"):
        check_finished(other)


def test_more_runs_at_a_time_than_fit_are_refused(job: Job) -> None:
    sweep = planned(job.with_values(model_name="llama3_70b"), grid({"seed": [1, 2]}), here=False)
    with pytest.raises(UsageError, match=r"--parallel 2: 2 runs need .* GiB of memory.*use --parallel 1"):
        check_parallel(sweep, 2)
    check_parallel(sweep, 1)
    on_slurm = planned(job.with_values(executor="slurm"), grid({"seed": [1, 2]}), here=False)
    with pytest.raises(UsageError, match="on Slurm, the queue decides"):
        check_parallel(on_slurm, 2)


def test_results_are_compared_by_validation_loss_and_seeds_are_put_together(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(planned(job, grid({"lr": [1e-3, 3e-4], "seed": [1, 2]}), here=False))
    write_record(sweep.folder, sweep.plan.record())
    for run, loss in zip(sweep.plan.runs[:3], (3.30, 3.10, 3.25), strict=True):
        write_result(run, 3.0, val_loss=loss)
    results = results_of(sweep.folder)
    assert results.best is not None
    assert (results.best.name, results.best.value) == ("lr-0.001_seed-2", 3.10)
    first = results.by_seed()[0]
    assert (first.changes, first.seeds) == ({"lr": 1e-3}, (2, 1))
    assert first.mean == pytest.approx(3.2)
    assert first.deviation == pytest.approx(0.2 / 2**0.5)
    assert results.counts == {"finished": 3, "not started": 1}
    assert main(["status", str(sweep.folder)]) == 0
    assert "best lr-0.001_seed-2, validation loss 3.1000" in capsys.readouterr().out
    assert main(["status", "--runs-dir", str(sweep.folder.parent)]) == 0
    assert "sweep sweep: 4 runs: 3 finished, 1 not started" in capsys.readouterr().out
    page = sweep.report().read_text(encoding="utf-8")
    assert '<dd class="value wrapped">lr-0.001_seed-2</dd>' in page
    assert 'id="parallel"' in page
    assert "3.1000 – 3.3000" in page
    assert main(["report", str(sweep.folder)]) == 0


def test_a_larger_record_keeps_the_earlier_runs(job: Job) -> None:
    small, large = (planned(job, grid({"seed": seeds}), here=False) for seeds in ([1, 2], [2, 3]))
    write_record(small.folder, small.record())
    write_record(large.folder, large.record())
    assert [member.name for member in read_record(small.folder).members] == ["seed-1", "seed-2", "seed-3"]


def test_a_ladder_predicts_a_larger_run_and_checks_it(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    from nemolaunch.sweeps.law import law_of

    law = (1.8172, 482.01, 0.3478, 2085.43, 0.3658)  # Besiroglu et al. 2024
    points, targets = ladder_points(SIZES, [22.0], {"seed": [1, 2]}, ["aixsim-1.1b"])
    options: dict[str, Any] = {"points": points, "predicted": targets, "kind": "ladder", "here": False}
    plan = planned(job, train_predicted=True, **options)
    write_record(plan.folder, plan.record())
    *fit_runs, target = plan.runs
    for run in fit_runs:
        loss = law_of("full", law, run.weights, run.tokens) + 0.002 * (run.point.changes["seed"] - 1.5)
        write_result(run, loss, val_loss=loss)
    before = fitted(results_of(plan.folder))
    assert [p.verdict for p in before.predictions] == ["not trained yet"]
    assert len(before.fit.samples) == 8
    truth = law_of("full", law, target.weights, target.tokens)
    assert before.predictions[0].expected.value == pytest.approx(truth, rel=0.005)
    write_result(target, truth, val_loss=truth)
    after = fitted(results_of(plan.folder)).predictions[0]
    assert after.reached == pytest.approx(truth)
    assert after.expected == before.predictions[0].expected  # what is predicted is not fitted
    assert "inside the 95 % interval" in after.verdict
    assert main(["ladder", "--fit", str(plan.folder)]) == 0
    said = capsys.readouterr().out
    assert "tokens per weight, so that A, alpha, B and beta cannot be told apart" in said
    assert after.verdict in said
    page = (plan.folder / "report.html").read_text(encoding="utf-8")
    assert after.verdict in page


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--sizes", "nano", "micro"], "--sizes has 2 of different weights: a law needs at least 3"),
        (["--sizes", *SIZES, "gemma_2b"], "--sizes must be models of one family"),
        (["--sizes", *SIZES[1:], "--predict", SIZES[0]], "a prediction is for a larger run"),
        (["--sizes", *SIZES, "--predict", SIZES[0]], "must name different models"),
        (["--sizes", *SIZES, "--sweep", "max-steps=1,2"], "--sizes and --tokens-per-param say this"),
        (["--sizes", *SIZES, "--train-predicted"], "add --predict MODEL"),
        ([], "a ladder needs --sizes"),
    ],
)
def test_ladders_that_fit_no_law_are_refused(
    job: Job, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(job)
    del given[given.index("--max-steps") : given.index("--max-steps") + 2], given[:2]
    assert main(["ladder", *words, *given, "--dry-run"]) == 2
    assert why in capsys.readouterr().err
