"""Training straight from rows with Megatron-Bridge: the samples, losses and ledgers are those of NeMo 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from bridge.test_same_training import BRIDGE, job, train_bridge
from cases import cases
from e2e.jobs import train as train_nemo
from e2e.test_documents import FLAGS
from e2e.test_stream import COMMON, CORPUS, WORDS
from forkserver import ForkServer, JobFailed

import nemolaunch as nl
from nemolaunch.cli.commands.data_audit import main as data_audit
from nemolaunch.launching.prepare import finished_step
from nemolaunch.planning import Plan
from nemolaunch.run import metrics
from nemolaunch.stream import ledger

SHORT: dict[str, Any] = {**COMMON, "dataset_dir": WORDS.split(","), "max_steps": 6, "global_batch_size": 8}
VALIDATED: dict[str, Any] = {"val_check_interval": 3, "limit_val_batches": 2}


def validations(plan: Plan) -> list[tuple[int, float]]:
    """Step and loss of each validation."""
    return [(row["step"], row["val_loss"]) for row in metrics.read(plan.run.metrics) if "val_loss" in row]


def test_killed_on_two_ranks_and_resumed_on_one(
    bridge_server: ForkServer, fork_server: ForkServer, tmp_path: Path
) -> None:
    """It continues with the very next row, as the run of NeMo 2 that never stopped."""
    values = {**SHORT, **VALIDATED}
    nemo = job(tmp_path / "nemo2", "", **values)
    (expected,) = train_nemo(fork_server, nemo)
    run = {**values, **BRIDGE, "output_dir": str(tmp_path / "run")}
    plan = job(tmp_path / "two", "", **run, num_gpus=2)
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, plan, kill_after=5)
    last = plan.run.last_checkpoint()
    assert last is not None
    assert last.name == "iter_0000003"
    plan = job(tmp_path / "one", "", **{**run, "num_workers": 2})
    (rest,) = train_bridge(bridge_server, plan)
    assert rest["step"] == [4, 5, 6]
    assert rest["loss"] == pytest.approx(expected["loss"][3:], rel=2e-5)  # two ranks sum in another order
    assert [step for step, _ in validations(plan)][-2:] == [3, 6]
    assert validations(plan)[-1][1] == pytest.approx(validations(nemo)[-1][1], rel=2e-5)
    sessions = ledger.sessions(plan.run)
    assert [(s.data_parallel_size, s.samples) for s in sessions] == [(2, 0), (1, 24)]
    assert data_audit([str(plan.run.root)]) == 0
    events = [row["event"] for row in metrics.read(plan.run.metrics) if "event" in row]
    assert events.count("stream") == 2
    assert "fed" in events


@pytest.mark.long
def test_moved_between_the_frameworks(
    bridge_server: ForkServer, fork_server: ForkServer, tmp_path: Path
) -> None:
    """To Bridge after three of nine steps and back after six, each with the very next row, and one ledger."""
    values = {**SHORT, **VALIDATED, "max_steps": 9}
    (expected,) = train_nemo(fork_server, job(tmp_path / "nemo2", "", **values))
    plan = job(tmp_path / "first", "", **values)
    with pytest.raises(JobFailed, match="-9"):
        train_nemo(fork_server, plan, kill_after=4)
    there = nl.migrate(plan.run.root, to="bridge", output=tmp_path / "there", python=str(PYTHON)).plan
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, there, kill_after=7)
    back = nl.migrate(there.run.root, to="nemo2", output=tmp_path / "back").plan
    (last,) = train_nemo(fork_server, back)
    assert last["step"] == [7, 8, 9]
    rows = [row for row in metrics.current(metrics.read(back.run.metrics)) if "loss" in row]
    assert [row["loss"] for row in rows] == expected["loss"]
    assert [session.samples for session in ledger.sessions(back.run)] == [0, 24, 48]
    assert data_audit([str(back.run.root)]) == 0


CASES: dict[str, dict[str, Any]] = {
    "documents, PP2": {**FLAGS, "num_gpus": 2, "pipeline_model_parallel_size": 2},
    "masked, TP2": {
        "objective": "mlm",
        "mask_token": "<|reserved_special_token_3|>",
        "num_gpus": 2,
        "tensor_model_parallel_size": 2,
    },
}
LONG = {"masked, TP2"}


@pytest.mark.parametrize("name", cases(CASES, LONG))
def test_same_losses(name: str, bridge_server: ForkServer, fork_server: ForkServer, tmp_path: Path) -> None:
    values = {**SHORT, "max_steps": 3, **CASES[name]}
    nemo = train_nemo(fork_server, job(tmp_path / "nemo2", "", **values))
    plan = job(tmp_path / "bridge", "", **values, **BRIDGE)
    bridge = train_bridge(bridge_server, plan)
    assert bridge[-1]["loss"] == nemo[0]["loss"]
    assert bridge[0]["grad_norm"] == nemo[0]["grad_norm"]
    (session,) = ledger.sessions(plan.run)
    fed = [batch["sample"] for batch in ledger.fed(plan.run, session.number)]
    assert sorted({int(n) for numbers in fed for n in numbers}) == list(range(24))


def test_a_stream_that_ends_ends_the_run(bridge_server: ForkServer, tmp_path: Path) -> None:
    small = tmp_path / "small.jsonl"
    small.write_text("".join((CORPUS / "zh_hant.jsonl").read_text(encoding="utf-8").splitlines(True)[:20]))
    values: dict[str, Any] = {**SHORT, "dataset_dir": [str(small)], "stopping_strategy": "first-exhausted"}
    plan = job(tmp_path / "run", "", **{**values, "max_steps": 1000, "num_gpus": 2}, **BRIDGE)
    result = train_bridge(bridge_server, plan)
    last = result[0]["step"][-1]
    assert result[1]["step"][-1] == last < 1000
    assert finished_step(plan) == last
    saved = plan.run.last_checkpoint()
    assert saved is not None
    assert saved.name == f"iter_{last:07d}"


def test_data_that_are_damaged_end_the_run_with_a_checkpoint(
    bridge_server: ForkServer, tmp_path: Path
) -> None:
    """Their repair continues it."""
    lines = (CORPUS / "zh_hant.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        (texts / f"part-{number:02}.jsonl").write_text("".join(lines[number::40][:12]), encoding="utf-8")
    values: dict[str, Any] = {
        **SHORT, "dataset_dir": [str(texts)], "shuffle_buffer": 1, "checkpoint_every": 100, "stream_readers": 1,
        "split": "1,0,0", "max_steps": 12, "global_batch_size": 16,
    }  # fmt: skip
    plan = job(tmp_path / "first", "", **values, **BRIDGE, output_dir=str(tmp_path / "run"))
    with pytest.raises(JobFailed, match=r"part-\d\d.jsonl: No such file or directory"):
        train_bridge(bridge_server, plan, hide=str(texts))
    assert plan.run.last_checkpoint() is not None
    texts.with_name("texts-hidden").rename(texts)
    plan = job(tmp_path / "second", "", **values, **BRIDGE, output_dir=str(tmp_path / "run"))
    (rest,) = train_bridge(bridge_server, plan)
    assert rest["step"][0] > 1
    assert rest["step"][-1] == 12
    assert data_audit([str(plan.run.root)]) == 0
