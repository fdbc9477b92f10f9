"""A training moved between NeMo 2 and Megatron-Bridge continues as if it had not been moved.

The right values are those of the framework that trained the whole run: 8 steps are 4 of one and 4 of the other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from bridge.moved_state import assert_same_state
from bridge.test_same_training import BRIDGE, job, train_bridge
from e2e.jobs import TOKENIZER, planned
from e2e.jobs import train as train_nemo
from forkserver import ForkServer, JobFailed
from nemo2.convert_support import assert_same_tensors, tensors
from training_checkpoint import hf_model

import nemolaunch as nl
from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.storage.formats import newest_of_run
from nemolaunch.cli.main import main
from nemolaunch.observe.reader import read_history
from nemolaunch.planning import Plan, PlanError
from nemolaunch.run import metrics
from nemolaunch.run.folder import RunDir, step_of

# What both frameworks train alike from the start, by `test_same_training`
LAYOUTS: dict[str, dict[str, Any]] = {
    "TP2 SP": {"num_gpus": 2, "tensor_model_parallel_size": 2, "sequence_parallel": True},
    "PP2, interleaved": {
        "num_gpus": 2,
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
    "tied, bf16, DP2": {"precision": "bf16", "num_gpus": 2, "tied": True, "global_batch_size": 4},
    "Mixtral, EP2": {"base": "mixtral_8x7b", "num_gpus": 2, "expert_model_parallel_size": 2},
    "optimizer in one piece, DP2": {"num_gpus": 2, "disable_dist_optim": True},
}
HALF = 4
TIED: dict[str, Any] = {"tied": True, "keep_latest": 2, "val_check_interval": 2, "limit_val_batches": 1}


@pytest.fixture(scope="module")
def whole(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each step of a run of NeMo 2 had that was not moved, and its validation losses by step."""
    plan = job(tmp_path_factory.mktemp("whole") / "nemo2", data, **TIED)
    (steps,) = train_nemo(fork_server, plan)
    return {**steps, "validated": validated(plan)}


def test_a_run_goes_on_there_and_back(
    whole: dict[str, Any], bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """A run that is killed twice continues in Bridge, and again in NeMo 2; its metrics are one curve."""
    plan = job(tmp_path / "first", data, **TIED, checkpoint_every=HALF)
    with pytest.raises(JobFailed, match="-9"):
        train_nemo(fork_server, plan, kill_after=5)
    words = [
        "migrate",
        str(plan.run.root),
        "--to",
        "bridge",
        "--python",
        str(PYTHON),
        "--checkpoint-every",
        "2",
    ]
    assert main([*words, "--dry-run"]) == 0
    assert not (tmp_path / "first" / "run-bridge").exists()
    assert main(words) == 0
    there = Plan.of_run(RunDir(tmp_path / "first" / "run-bridge"))
    with pytest.raises(JobFailed, match="-9"):
        train_bridge(bridge_server, there, kill_after=7)
    back = nl.migrate(there.run.root, to="nemo2", output=tmp_path / "back").plan
    (last,) = train_nemo(fork_server, back)
    assert last["step"] == [7, 8]
    rows = [row for row in metrics.current(metrics.read(back.run.metrics)) if "loss" in row]
    assert [row["step"] for row in rows] == whole["step"]
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in rows] == whole[name]
    assert [row["lr"] for row in rows] == pytest.approx(whole["lr"], rel=1e-7)
    marks = [mark for mark in read_history(back.run.root).marks if mark.kind == "migrated"]
    assert [mark.step for mark in marks] == [HALF, 6]
    assert sorted(validated(back)) == [2, 4, 6, 8]
    assert validated(back) == whole["validated"]
    assert json.loads(back.run.migration.read_text())["from"] == str(there.run.root)
    assert json.loads(back.run.finished.read_text())["step"] == 8


def validated(plan: Plan) -> dict[int, float]:
    """Validation loss by step."""
    return {row["step"]: row["val_loss"] for row in metrics.read(plan.run.metrics) if "val_loss" in row}


def half_way(plan: Plan) -> Path:
    """The checkpoint of the fourth step."""
    return next(path for path in plan.run.complete_checkpoints() if step_of(path) == HALF - 1)


def assert_rest(rest: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    """Every loss and gradient norm after the fourth step is the whole run's."""
    assert rest[-1]["step"] == list(range(HALF + 1, 9))
    assert rest[-1]["loss"] == whole[-1]["loss"][HALF:]
    assert rest[0]["grad_norm"] == whole[0]["grad_norm"][HALF:]


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_continues_in_the_other_framework(
    layout: str, bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """NeMo 2's checkpoint continues in Bridge, and Bridge's, half-way from there, in NeMo 2 again."""
    saves: dict[str, Any] = {"checkpoint_every": HALF, "keep_latest": 2, **LAYOUTS[layout]}
    plan = job(tmp_path / "nemo2", data, **saves)
    whole = train_nemo(fork_server, plan)
    convert(half_way(plan), tmp_path / "to-bridge", "bridge")
    there = job(
        tmp_path / "bridge",
        data,
        **BRIDGE,
        **{**saves, "checkpoint_every": 2},
        resume=str(tmp_path / "to-bridge"),
    )
    assert_rest(train_bridge(bridge_server, there), whole)
    later = there.run.checkpoints / "iter_0000006"
    convert(later, tmp_path / "to-nemo2", "nemo2")
    back = job(tmp_path / "back", data, **saves, resume=str(tmp_path / "to-nemo2"))
    again = train_nemo(fork_server, back)
    assert again[-1]["step"] == [7, 8]
    assert again[-1]["loss"] == whole[-1]["loss"][6:]
    assert again[0]["grad_norm"] == whole[0]["grad_norm"][6:]
    if "expert_model_parallel_size" in saves:
        fewer: dict[str, Any] = {"num_gpus": 1, "expert_model_parallel_size": 1, "python": str(PYTHON)}
        with pytest.raises(
            PlanError, match="was saved with -EP 2, so its optimizer state cannot be loaded with 1"
        ):
            nl.migrate(plan.run.root, to="bridge", output=tmp_path / "fewer", **fewer)
        assert not (tmp_path / "fewer").exists()


@pytest.mark.long
def test_the_state_is_the_frameworks_own(
    bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """Bit for bit: every tensor, group of parameters and counter that Bridge itself has after the same steps."""
    values: dict[str, Any] = {"tied": True, "max_steps": HALF, "decay_steps": 8}
    plans = job(tmp_path / "nemo2", data, **values), job(tmp_path / "bridge", data, **BRIDGE, **values)
    train_nemo(fork_server, plans[0])
    train_bridge(bridge_server, plans[1])
    convert(half_way(plans[0]), tmp_path / "moved", "bridge")
    assert_same_state(tmp_path / "moved" / "iter_0000004", half_way(plans[1]))


@pytest.mark.long
def test_the_frameworks_export_what_was_moved(
    bridge_server: ForkServer, fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """`llm.export_ckpt` and `AutoBridge` read the descriptions: their tensors are those of the source."""
    model = {
        "model_name": "hf",
        "hf_model_id": str(hf_model(tmp_path / "hf", Path(TOKENIZER))),
        "seq_length": 64,
    }
    plan = planned(made(tmp_path / "run"), data, **model, max_steps=2)
    train_nemo(fork_server, plan)
    convert(newest_of_run(plan.run.root), tmp_path / "bridge", "bridge")
    convert(tmp_path / "bridge", tmp_path / "nemo2", "nemo2")
    convert(tmp_path / "bridge", tmp_path / "expected", "hf")
    exporting = {"nemo": str(tmp_path / "nemo2"), "hf": str(tmp_path / "theirs")}
    fork_server.run("nemo2.convert_job:nemo_export", exporting)
    assert_same_tensors(tensors(tmp_path / "expected"), tensors(tmp_path / "theirs"))
    folders = {
        "source": str(tmp_path / "expected"),
        "ours": str(tmp_path / "bridge"),
        "back": str(tmp_path / "back"),
    }
    bridge_server.run("bridge.autobridge_job:export", folders, timeout=300)
    assert_same_tensors(tensors(tmp_path / "expected"), tensors(tmp_path / "back"))


def made(folder: Path) -> Path:
    """The folder, made."""
    folder.mkdir()
    return folder
