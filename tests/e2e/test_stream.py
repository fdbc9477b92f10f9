"""Training straight from rows: each fed once an epoch over kills and other layouts, as if it had never stopped."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from e2e.jobs import planned, train
from forkserver import ForkServer, JobFailed

from nemolaunch.cli.commands.data_audit import main as data_audit
from nemolaunch.launching.prepare import finished_step
from nemolaunch.planning import Plan
from nemolaunch.run import metrics
from nemolaunch.stream import ledger

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
COMMON: dict[str, Any] = {
    "data_mode": "stream",
    "max_steps": 12,
    "checkpoint_every": 3,
    "stream_readers": 4,
    "shuffle_buffer": 50,
    "num_workers": 1,
    "global_batch_size": 16,
}
WORDS = f"{CORPUS}/en.jsonl:0.7,{CORPUS}/zh_hant.jsonl:0.3"


@pytest.fixture(scope="module")
def whole(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Any]]:
    """A run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    plan = planned(folder, WORDS, **COMMON, val_check_interval=6, limit_val_batches=2)
    (result,) = train(fork_server, plan)
    return plan, result


def test_kills_and_other_ranks_and_workers_change_nothing(
    fork_server: ForkServer,
    tmp_path: Path,
    whole: tuple[Plan, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = {**COMMON, "output_dir": str(tmp_path / "run"), "val_check_interval": 6, "limit_val_batches": 2}
    plan = planned(tmp_path, WORDS, **{**run, "num_gpus": 2})
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=5)
    plan = planned(tmp_path, WORDS, **{**run, "num_workers": 2, "micro_batch_size": 2})
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=8)
    plan = planned(tmp_path, WORDS, **{**run, "num_gpus": 2, "num_workers": 0})
    rest = train(fork_server, plan)

    _, never_stopped = whole
    assert rest[0]["step"] == [7, 8, 9, 10, 11, 12]
    assert rest[0]["loss"] == pytest.approx(never_stopped["loss"][6:], rel=2e-5)
    assert _validations(plan)[-1][1] == pytest.approx(_validations(whole[0])[-1][1], rel=2e-5)

    assert data_audit([str(plan.run.root), "--json", "--rows", str(tmp_path / "rows.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["data_parallel_size"] for s in found["sessions"]] == [2, 1, 2]
    assert [s["samples"] for s in found["sessions"]] == [0, 48, 96]
    assert found["samples"] == 12 * 16
    assert found["tokens"] == 12 * 16 * 64
    for source in found["sources"]:
        assert all(e["repeated"] == e["passed_over"] == 0 for e in source["epochs"])
    assert [source["requested"] for source in found["sources"]] == [0.7, 0.3]
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 561 + 8613
    assert sum(int(row["times"]) for row in rows) == sum(s["fed"] for s in found["sources"])

    assert data_audit([str(plan.run.root)]) == 0
    assert "no row was fed twice in an epoch, none was skipped" in capsys.readouterr().out


def _validations(plan: Plan) -> list[tuple[int, float]]:
    return [(row["step"], row["val_loss"]) for row in metrics.read(plan.run.metrics) if "val_loss" in row]


def test_masked_samples_are_masked_the_same_after_a_kill_and_on_other_ranks(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    masked = {**COMMON, "objective": "mlm", "mask_token": "<|reserved_special_token_3|>", "max_steps": 5}
    plan = planned(tmp_path, WORDS, **masked, output_dir=str(tmp_path / "whole"))
    (never_stopped,) = train(fork_server, plan)
    plan = planned(tmp_path, WORDS, **masked, output_dir=str(tmp_path / "killed"))
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=4)
    plan = planned(tmp_path, WORDS, **{**masked, "num_gpus": 2}, output_dir=str(tmp_path / "killed"))
    rest = train(fork_server, plan)
    assert rest[0]["step"] == [4, 5]
    assert rest[0]["loss"] == pytest.approx(never_stopped["loss"][3:], rel=2e-5)


def test_what_was_fed_is_told(whole: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = whole
    rows = metrics.read(plan.run.metrics)
    fed = [row for row in rows if row.get("event") == "fed"][-1]["sources"]
    assert sum(source["tokens"] for source in fed) == 12 * 16 * 64
    assert fed[0]["tokens"] > fed[1]["tokens"] > 0
    assert all("data_wait_s" in row for row in rows if "loss" in row)
    context = plan.run.last_checkpoint() / "context"  # type: ignore[operator]
    assert "nemolaunch.nemo2" not in (context / "io.json").read_text() + (context / "model.yaml").read_text()


def test_tensor_and_pipeline_ranks_see_the_same_samples(fork_server: ForkServer, tmp_path: Path) -> None:
    """Each is written down once, by the first rank of a model."""
    for layout in ("tensor_model_parallel_size", "pipeline_model_parallel_size"):
        folder = tmp_path / layout
        folder.mkdir()
        other = planned(folder, WORDS, **{**COMMON, "max_steps": 2, "checkpoint_every": None, layout: 2})
        train(fork_server, other)
        (session,) = ledger.sessions(other.run)
        fed = [batch["sample"] for batch in ledger.fed(other.run, session.number)]
        assert sorted({int(n) for numbers in fed for n in numbers}) == list(range(32))


def test_fresh_order_has_a_seed_of_each_session(
    fork_server: ForkServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in (3, 6):
        plan = planned(tmp_path, WORDS, **{**COMMON, "data_resume": "fresh", "max_steps": steps})
        train(fork_server, plan)
    first, second = ledger.sessions(plan.run)
    assert first.seed != second.seed
    assert max(first.seed, second.seed) > 2**32
    assert [second.resume, second.samples] == ["fresh", 48]
    logged = [r["shuffle_seed"] for r in metrics.read(plan.run.metrics) if r.get("event") == "stream"]
    assert logged == [first.seed, second.seed]
    assert data_audit([str(plan.run.root)]) == 0


def test_files_that_vanish_end_the_run_with_a_checkpoint_and_it_goes_on(
    fork_server: ForkServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (CORPUS / "zh_hant.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        (texts / f"part-{number:02}.jsonl").write_text("".join(lines[number::40][:12]), encoding="utf-8")
    values = {**COMMON, "shuffle_buffer": 1, "checkpoint_every": 100, "stream_readers": 1, "split": "1,0,0"}
    plan = planned(tmp_path, str(texts), **values)
    with pytest.raises(
        JobFailed, match=r"part-\d\d.jsonl: No such file or directory; it had [\d,]+ bytes when"
    ):
        train(fork_server, plan, hide=str(texts))
    saved = plan.run.last_checkpoint()
    assert saved is not None
    texts.with_name("texts-hidden").rename(texts)
    (rest,) = train(fork_server, planned(tmp_path, str(texts), **values))
    assert rest["step"][0] > 1
    assert rest["step"][-1] == 12
    assert data_audit([str(plan.run.root)]) == 0
    assert "none was skipped" in capsys.readouterr().out


def test_a_stream_that_ends_ends_the_run(fork_server: ForkServer, tmp_path: Path) -> None:
    values = {**COMMON, "stopping_strategy": "first-exhausted", "max_steps": 1000, "num_gpus": 2}
    small = tmp_path / "small.jsonl"
    small.write_text("".join((CORPUS / "zh_hant.jsonl").read_text(encoding="utf-8").splitlines(True)[:20]))
    plan = planned(tmp_path, str(small), **values)
    result = train(fork_server, plan)
    last = result[0]["step"][-1]
    assert result[1]["step"][-1] == last < 1000
    assert finished_step(plan) == last
    assert plan.run.last_checkpoint() is not None
