"""Commands that replace something, interrupted at any moment: the earlier result or the new one remains, whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "kill_trials.py"


def run(folder: Path, num_trials: int, *kinds: str) -> dict[str, object]:
    words = [sys.executable, str(PROGRAM), str(folder), str(num_trials), *kinds]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_twenty_interruptions_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, 20, "merge")["faults"] == []


@pytest.mark.long
def test_two_hundred_interruptions_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    for kind, num_trials in (("merge", 100), ("convert", 70), ("tokenize", 40)):
        assert run(tmp_path, num_trials, kind)["faults"] == []
