"""Which backend trains a job, by which interpreter, and which checkpoints of it are complete."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from check_jobs import codes, findings, job, resolved

from nemolaunch.facts import Host, look
from nemolaunch.facts.interpreter import Interpreter, look_at_interpreter
from nemolaunch.job import Job
from nemolaunch.launching import torchrun
from nemolaunch.launching.torchrun_words import torchrun_words
from nemolaunch.planning.plan import compose
from nemolaunch.run.folder import RunDir, is_bridge, step_of
from nemolaunch.system.secret_values import masked_streams

LOCAL: dict[str, Any] = {"executor": "local", "num_gpus": 1}
BRIDGE = Interpreter(path="/env/bin/python", bridge="0.6.2", megatron="0.19.2")


def environment(folder: Path, *packages: str) -> Path:
    """A virtual environment as far as its metadata goes: no process is started to look at it."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    for package in packages:
        (folder / "lib" / "python3.12" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    return python


def test_releases_are_read_without_starting_the_interpreter(tmp_path: Path) -> None:
    python = environment(tmp_path / "my env", "megatron_bridge-0.6.2", "megatron_core-0.19.2")
    found = look_at_interpreter(Job(python=str(python)))
    assert found == Interpreter(path=str(python), bridge="0.6.2", megatron="0.19.2")


def test_a_missing_interpreter_is_an_error(tmp_path: Path) -> None:
    assert look_at_interpreter(Job(python=str(tmp_path / "none"))).error == "it does not exist"
    assert look_at_interpreter(Job(python=str(tmp_path))).error == "it is not an executable file"


def test_the_interpreter_is_that_of_install_bridge_or_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert look_at_interpreter(Job()).here
    python = environment(tmp_path / ".venv-bridge", "megatron_bridge-0.6.2")
    assert look_at_interpreter(Job()).path == str(python)


@pytest.mark.parametrize(
    ("nemo", "interpreter", "backend"),
    [
        ("2.7.3", BRIDGE, "nemo2"),
        ("2.7.3", None, "nemo2"),
        (None, BRIDGE, "bridge"),
        (None, dataclasses.replace(BRIDGE, bridge=None), "nemo2"),
    ],
)
def test_auto_is_nemo2_where_both_are(
    nemo: str | None, interpreter: Interpreter | None, backend: str
) -> None:
    host = Host(num_cpus=8, memory_bytes=2**36, nemo=nemo, megatron=nemo and "0.15.3")
    plan = compose(resolved(job(**LOCAL), host=host, interpreter=interpreter), ())
    assert plan.with_bridge == (backend == "bridge")
    assert plan.python == ("/env/bin/python" if backend == "bridge" else None)


def test_a_job_for_bridge_is_accepted_and_started_by_its_interpreter() -> None:
    asked = job("demo-llama", **LOCAL, backend="bridge")
    found = codes("demo-llama", **LOCAL, backend="bridge", changed={"interpreter": BRIDGE})
    assert {code for code in found if "bridge" in code or "backend" in code} == set()
    plan = compose(resolved(asked, interpreter=BRIDGE), ())
    assert torchrun_words(plan)[:3] == ["/env/bin/python", "-m", "torch.distributed.run"]
    assert (plan.versions["megatron-bridge"], plan.versions["megatron-core"]) == ("0.6.2", "0.19.2")
    assert "nemo_toolkit" not in plan.versions
    here = dataclasses.replace(BRIDGE, path=sys.executable, here=True)
    assert torchrun_words(compose(resolved(asked, interpreter=here), ()))[0] == sys.executable


def test_the_output_of_torchrun_is_written_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "at $PLACE"\nexit 3\n')
    python.chmod(0o755)
    monkeypatch.setenv("PLACE", "http://me:12345678@host/")
    asked = job("demo-llama", **LOCAL, backend="bridge")
    plan = compose(resolved(asked, interpreter=dataclasses.replace(BRIDGE, path=str(python))), ())
    with masked_streams():
        assert torchrun.run(plan) == 3
    assert capsys.readouterr().out == "at http://me:***@host/\n"


@pytest.mark.parametrize("backend", ["auto", "bridge"])
def test_nothing_is_looked_for_here_if_an_image_trains(backend: str) -> None:
    """Whether an image has NeMo 2 or Megatron-Bridge is not known from this machine's environment."""
    assert look(Job(executor="docker", backend=backend)).interpreter is None


def test_a_damaged_record_of_the_newest_checkpoint_is_none(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (run.checkpoints / "iter_0000010").mkdir(parents=True)
    for content in (b"", b"\xff\xfe", "\u00b2".encode(), b"ten", b"9" * 5000):
        (run.checkpoints / "latest_checkpointed_iteration.txt").write_bytes(content)
        assert run.last_checkpoint() is None


def test_complete_checkpoints_are_those_that_bridge_has_recorded(tmp_path: Path) -> None:
    """Bridge writes `latest_checkpointed_iteration.txt` once a checkpoint is complete (training/checkpointing.py)."""
    run = RunDir(tmp_path)
    for steps in (10, 20, 30):
        (run.checkpoints / f"iter_{steps:07d}").mkdir(parents=True)
    assert run.last_checkpoint() is None
    (run.checkpoints / "latest_checkpointed_iteration.txt").write_text("20")
    last = run.last_checkpoint()
    assert last is not None
    assert (last.name, is_bridge(last), step_of(last) + 1) == ("iter_0000020", True, 20)
    assert [step_of(path) + 1 for path in run.complete_checkpoints()] == [10, 20]
    newest = run.newest_checkpoint()
    assert newest is not None
    assert newest.name == "iter_0000030"


@pytest.mark.parametrize(
    ("model", "values", "factor"),
    [
        ("mixtral_8x7b", {"context_parallel_size": 2}, 2),
        ("mixtral_8x7b", {"context_parallel_size": 2, "tensor_model_parallel_size": 2}, 2),
        ("mixtral_8x7b", {"tensor_model_parallel_size": 4, "eod_mask_loss": True}, 4),
        ("mixtral_8x7b", {"tensor_model_parallel_size": 4}, None),
        ("llama3_8b", {"context_parallel_size": 2, "eod_mask_loss": True}, None),
    ],
)
def test_another_weight_of_the_loss_that_balances_experts_is_told(
    model: str, values: dict[str, Any], factor: int | None
) -> None:
    """Megatron-Core's `TopKRouter` multiplies it by the ranks that split a sequence since 0.19."""
    asked: dict[str, Any] = {"executor": "local", "num_gpus": 8, "backend": "bridge", **values}
    found = findings(model, **asked, changed={"interpreter": BRIDGE})
    told = [finding.message for finding in found if finding.code == "bridge-differs"]
    assert [f"weighs {factor} times" in message for message in told] == ([True] if factor else [])
