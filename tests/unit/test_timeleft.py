"""A job exits while there is time for a checkpoint, and starts none that could not be finished."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nemolaunch.ranks.time_left import CONTINUE, EXIT, SAVE_AND_EXIT, JobEnd, SlowestSave, decide
from nemolaunch.run.folder import RunDir

USUAL: dict[str, Any] = {
    "left_s": 3600.0,
    "kill_wait_s": 30.0,
    "save_s": 100.0,
    "step_s": 10.0,
    "before_s": None,
    "asked": False,
}


@pytest.mark.parametrize(
    ("changed", "decision"),
    [
        ({}, CONTINUE),
        ({"left_s": None}, CONTINUE),  # nobody knows when the job ends
        ({"left_s": 211.0}, CONTINUE),
        ({"left_s": 209.0}, SAVE_AND_EXIT),  # two saves and a step before the end
        ({"left_s": 119.0}, EXIT),  # a save with its margin takes 120 s
        ({"left_s": 131.0, "save_s": None}, CONTINUE),
        ({"left_s": 129.0, "save_s": None}, SAVE_AND_EXIT),
        ({"left_s": 209.0, "before_s": 30.0}, CONTINUE),
        ({"left_s": 125.0, "before_s": 30.0}, SAVE_AND_EXIT),  # later there would be no time to save
        ({"left_s": 900.0, "before_s": 1000.0}, SAVE_AND_EXIT),
        ({"asked": True}, SAVE_AND_EXIT),
        ({"asked": True, "left_s": None}, SAVE_AND_EXIT),
        ({"asked": True, "left_s": 0.0}, EXIT),  # killed in 30 s
        ({"asked": True, "left_s": 0.0, "kill_wait_s": 200.0}, SAVE_AND_EXIT),
        ({"asked": True, "left_s": 0.0, "save_s": None}, SAVE_AND_EXIT),
    ],
)
def test_decision(changed: dict[str, Any], decision: int) -> None:
    assert decide(**{**USUAL, **changed}) == decision


def test_the_end_is_read_from_the_batch_script_and_asked_for(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    end = JobEnd(run)
    assert end.left_s() is None
    run.slurm.mkdir()

    def answer() -> None:
        while not run.slurm_ask.exists():
            time.sleep(0.01)
        run.slurm_end.write_text(f"{int(time.time()) + 500} 30\n")
        run.slurm_ask.unlink()

    script = threading.Thread(target=answer)
    script.start()
    end.ask()
    script.join()
    left_s = end.left_s()
    assert left_s is not None
    assert 490 < left_s <= 500
    assert end.kill_wait_s == 30


def test_the_slowest_save_is_known_to_later_starts(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    saves = SlowestSave(run)
    assert saves.seconds is None
    for seconds in (0.05, 0.0):
        took = saves.begin(writes=True)
        time.sleep(seconds)  # training goes on meanwhile
        took()
    known = SlowestSave(run).seconds
    assert known is not None
    assert known >= 0.05
