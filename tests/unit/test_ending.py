"""How a run ended, from what it left behind: each view gives the same state, and the first error of a chain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.views import agree
from golden.batch_plans import saved_plan

from nemolaunch.errors import NemolaunchError
from nemolaunch.observe.diagnosis import diagnose
from nemolaunch.observe.ending import COMMAND_GONE, ending
from nemolaunch.observe.report.run_page import run_page
from nemolaunch.observe.tracebacks import first_error
from nemolaunch.planning import Plan
from nemolaunch.ranks.error_chain import chain, described
from nemolaunch.run.folder import RunDir
from nemolaunch.system.atomic_files import write_json

GIVEN_UP = "3 attempts in a row made no progress beyond checkpoint 5; see nemolaunch diagnose"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run on this machine that has done two steps."""
    plan = saved_plan(tmp_path / "run")
    content = json.loads(plan.run.plan.read_text())
    content["submission"] = None
    content["values"]["executor"] = "local"
    plan.run.plan.write_text(json.dumps(content))
    rows: list[dict[str, object]] = [{"event": "start", "step": 0, "time": 1.0, "max_steps": 100}]
    rows += [{"step": step, "time": 1.0 + step, "loss": 9.0} for step in (1, 2)]
    plan.run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Plan.load(plan.run.plan).run


def raised(run: RunDir, rank: int, kind: str, message: str = "", **more: object) -> None:
    run.rank_error(rank).write_text(
        json.dumps({"rank": rank, "time": 5.0 + rank, "type": kind, "message": message, **more})
    )


def test_ctrl_c_is_a_stop_whatever_ranks_raise(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(run.local_end, {"state": "stopped", "detail": "interrupted"})
    raised(run, 0, "SIGTERMException")
    raised(run, 1, "RuntimeError", "cannot save")
    agree(run.root, "stopped", "interrupted", capsys)


def test_ranks_without_their_command_were_stopped(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    raised(run, 0, "SIGTERMException")
    agree(run.root, "stopped", COMMAND_GONE, capsys)


def test_an_error_is_a_failure_whatever_the_others_raise(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    raised(run, 0, "SIGTERMException")
    raised(run, 1, "IndexError", "index out of range in self")
    agree(run.root, "failed", "rank 1: IndexError: index out of range in self", capsys)


def test_a_cancelled_job_is_a_stop(tmp_path: Path) -> None:
    run = saved_plan(tmp_path / "run").run
    run.slurm.mkdir()
    run.slurm_attempts.write_text("- 0 1 submitted\n14 0 2 -1 n1\n")
    raised(run, 0, "SIGTERMException", start="14.0")
    for why in ("cancelled by the user", "job 14 was cancelled"):
        run.slurm_stopped.write_text(why + "\n")
        end = ending(run)
        assert end is not None
        assert (end.state, end.detail) == ("stopped", why)
        page = run_page(run.root, "run", 100)
        assert (page.state, page.failure) == ("stopped", None)
    run.slurm_stopped.write_text(GIVEN_UP + "\n")
    end = ending(run)
    assert end is not None
    assert end.state == "failed"


def test_a_rank_tells_the_first_error_and_what_followed(run: RunDir) -> None:
    raised(run, 0, "OutOfMemoryError", "CUDA out of memory", then=["AttributeError: no attribute 'x'"])
    found = diagnose(run)
    assert found.what == "rank 0: OutOfMemoryError: CUDA out of memory"
    assert found.cause is not None
    assert found.cause.code == "gpu-memory"
    assert "then    AttributeError: no attribute 'x'" in found.lines()


def caught(code: str) -> BaseException:
    """Return what a piece of code raises."""
    try:
        exec(code, {"NemolaunchError": NemolaunchError})
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


CLEAN_UP = """
try:
    raise TypeError("unexpected keyword argument 'pg_collection'")
finally:
    None.teardown()
"""
CAUSED = """
try:
    {}["lr"]
except KeyError as error:
    raise ValueError("no learning rate") from error
"""
HIDDEN = """
try:
    {}["lr"]
except KeyError:
    raise ValueError("no learning rate") from None
"""
OURS = """
try:
    try:
        {}["lr"]
    except KeyError:
        raise NemolaunchError("the plan has no learning rate")
finally:
    None.teardown()
"""
EXHAUSTED = """
try:
    next(iter(()))
except StopIteration:
    raise RuntimeError("the data has ended")
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            CLEAN_UP,
            [
                "TypeError: unexpected keyword argument 'pg_collection'",
                "AttributeError: 'NoneType' object has no attribute 'teardown'",
            ],
        ),
        (CAUSED, ["KeyError: 'lr'", "ValueError: no learning rate"]),
        (HIDDEN, ["ValueError: no learning rate"]),
        (
            OURS,
            [
                "NemolaunchError: the plan has no learning rate",
                "AttributeError: 'NoneType' object has no attribute 'teardown'",
            ],
        ),
        (EXHAUSTED, ["RuntimeError: the data has ended"]),
    ],
)
def test_a_chain_begins_with_its_cause(code: str, words: list[str]) -> None:
    assert [described(error) for error in chain(caught(code))] == words


@pytest.mark.parametrize("label", ["", "[default0]:", "0: "])
def test_a_log_is_read_as_python_prints_it(label: str) -> None:
    """What Python itself prints for these chains, with the labels of torchrun's --tee and of srun's --label."""
    for code, first in (
        (CLEAN_UP, "TypeError: unexpected keyword argument 'pg_collection'"),
        (CAUSED, "KeyError: 'lr'"),
        (HIDDEN, "ValueError: no learning rate"),
    ):
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        ).stderr
        report = (
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\nfdl_runner FAILED\n"
        )
        lines = [label + line for line in printed.splitlines()]
        text = "\n".join(["INFO: training", *lines, f"Traceback (most recent call last):\n  File\n{report}"])
        assert first_error(text) == first


def test_tracebacks_of_two_processes_do_not_mix() -> None:
    text = """\
[rank0]:Traceback (most recent call last):
[rank1]:Traceback (most recent call last):
[rank0]:  File "a.py", line 1
[rank1]:  File "a.py", line 1
[rank1]:ValueError: one

[rank1]:During handling of the above exception, another exception occurred:
[rank0]:KeyError: 'zero'
[rank1]:Traceback (most recent call last):
[rank1]:  File "b.py", line 2
[rank1]:AttributeError: two
"""
    assert first_error(text) == "ValueError: one"
    assert first_error("no traceback here") is None
