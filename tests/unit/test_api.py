"""`import nemolaunch`: a job, its plan, and a run that exists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from golden.old_run_support import unpack

import nemolaunch as nl

TOKENIZER = Path(__file__).parents[2] / "examples" / "tokenizer"


def output_of(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_it_imports_nothing_else() -> None:
    before = output_of("-c", "import sys; print(len(sys.modules))")
    code = "import sys, nemolaunch; print([m for m in sys.modules if m.startswith('nemolaunch.')], len(sys.modules))"
    own, after = output_of("-c", code).rsplit(" ", 1)
    assert own == "[]"
    assert int(after) - int(before) < 30  # typing and importlib at most, whichever Python


def test_every_public_name_is_there_in_any_order() -> None:
    code = f"""
import nemolaunch as nl
for names in ({nl.__all__!r}, reversed({nl.__all__!r})):
    for name in names:
        value = getattr(nl, name)
        assert isinstance(value, str) or callable(value), (name, value)
        assert name in dir(nl)
print("all there")
"""
    assert output_of("-c", code) == "all there"


def test_the_version_and_the_module_as_a_command() -> None:
    assert output_of("-m", "nemolaunch", "--version") == f"nemolaunch {nl.__version__}"
    assert "usage: nemolaunch" in output_of("-m", "nemolaunch")


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"tp": 2}, "tensor_model_parallel_size", 2),
        ({"TP": 2}, "tensor_model_parallel_size", 2),
        ({"tensor_parallel_size": 2}, "tensor_model_parallel_size", 2),
        ({"gbs": 64}, "global_batch_size", 64),
        ({"G": 8}, "num_gpus", 8),
        ({"gpus_per_node": 8}, "num_gpus", 8),
        ({"tokenizer": "a/b"}, "hf_model_id", "a/b"),
        ({"tokenizer": Path("a/b")}, "hf_model_id", "a/b"),
        ({"pretrained_checkpoint": "x"}, "nemo_model", "x"),
        ({"data": "x"}, "dataset_dir", ("x",)),
        ({"data": [Path("x"), "y"]}, "dataset_dir", ("x", "y")),
        ({"max_tokens": "20B"}, "max_tokens", 20_000_000_000),
        ({"keep": 7}, "keep_latest", 7),
        ({"fp8": True}, "fp8", True),
    ],
)
def test_a_job_takes_any_name_of_a_flag(given: dict[str, Any], name: str, value: object) -> None:
    assert nl.Job(model="llama32_1b", **given).get(name) == value


def test_everything_wrong_with_a_job_is_said_at_once() -> None:
    with pytest.raises(nl.UsageError) as wrong:
        nl.Job(model="llama32_1b", max_step=10, lr="fast", executor="k8s")
    said = str(wrong.value)
    assert "a job has no field 'max_step'; did you mean max_steps" in said
    assert "--lr takes a number, not 'fast'" in said
    assert "--executor takes one of local, docker, podman, apptainer, slurm, not 'k8s'" in said


def test_a_job_shows_what_differs_from_the_defaults_and_no_secret() -> None:
    job = nl.Job(model="llama32_1b", tp=2, hf_token="hf_canary")
    assert repr(job) == "Job(model_name='llama32_1b', tensor_model_parallel_size=2)"
    assert job == nl.Job(model="llama32_1b").with_values(tp=2, hf_token="hf_canary")
    assert "hf_canary" not in repr(nl.plan(job)) + nl.plan(job)._repr_html_()


def test_a_plan_says_what_is_wrong(tmp_path: Path) -> None:
    job = nl.Job(
        model="llama32_1b", tokenizer=TOKENIZER, data=tmp_path / "<none>", G=8, tp=3, output_dir=tmp_path
    )
    plan = nl.plan(job)
    assert {"data-unreadable", "heads-by-tp"} <= {finding.code for finding in plan.findings}
    assert repr(plan).endswith(f"{len([f for f in plan.findings if f.severity == 'error'])} errors>")
    with pytest.raises(nl.PlanError, match="heads-by-tp") as refused:
        plan.raise_for_errors()
    assert "data-unreadable" in {finding.code for finding in refused.value.findings}
    with pytest.raises(nl.PlanError):
        nl.launch(plan)
    assert list(tmp_path.iterdir()) == []
    page = plan._repr_html_()
    assert "&lt;none&gt;" in page
    assert "<none>" not in page


def test_a_plan_is_final(tmp_path: Path) -> None:
    plan = nl.plan(nl.Job(model="llama32_1b", hf_token="hf_canary", output_dir=tmp_path))
    assert plan.job.model.hf_token is None
    with pytest.raises(AttributeError):
        plan.job = nl.Job()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        plan.job.batch.max_steps = 5  # type: ignore[misc]


def test_a_job_without_a_model_is_refused() -> None:
    with pytest.raises(nl.UsageError, match="a job needs a model"):
        nl.plan(nl.Job(tp=2))


def test_a_run_that_exists(tmp_path: Path) -> None:
    run = nl.Run(unpack(tmp_path))
    assert repr(run) == f"<Run '{tmp_path}/run': finished, step 8 of 8>"
    assert run.wait().state == "finished"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert run.metrics() == rows
    frame = run.metrics(as_frame=True)
    assert list(frame["loss"].dropna()) == [row["loss"] for row in rows if "loss" in row]  # type: ignore[call-overload]
    assert [path.name.partition("-consumed")[0] for path in run.checkpoints] == [
        "tiny--step=3",
        "tiny--step=7",
    ]
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.resolve() == run.checkpoints[-1]
    assert run.plan.job.optimizer.lr == 1e-3
    assert run.report() == run.folder / "report.html"
    assert "<title>" in (run.folder / "report.html").read_text()
    assert run.stop() == []
    assert run.status().state == "finished"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(nl.NemolaunchError, match="is not a run folder"):
        nl.Run(tmp_path)


def test_a_finished_run_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = unpack(tmp_path)
    before = (folder / "metrics.jsonl").read_bytes()
    run = nl.launch(nl.plan(nl.Run(folder).plan.job))
    assert run.wait().step == 8
    assert (folder / "metrics.jsonl").read_bytes() == before
