"""What a dry run says: the verdict first, estimates for the device that trains, and lines that fit the terminal."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from check_jobs import TOKENIZER, write_data

from nemolaunch.cli.views.paint import write_parts
from nemolaunch.cli.views.plan_text import plan_text, print_plan, verdict
from nemolaunch.estimate import SpeedAssumption
from nemolaunch.job import Job
from nemolaunch.planning import Plan, make_plan


class Terminal(io.StringIO):
    """A terminal of 80 columns, or as many as COLUMNS says."""

    def isatty(self) -> bool:
        return True


def planned(folder: Path, *, dev_run: bool = False, mfu: float | None = None, **values: Any) -> Plan:
    defaults: dict[str, Any] = {
        "model_name": "nano",
        "hf_model_id": TOKENIZER,
        "dataset_dir": (write_data(folder),),
        "output_dir": str(folder / "run"),
        "device": "cpu",
        "seq_length": 64,
        "global_batch_size": 16,
        "max_steps": 10,
        "precision": "fp32",
    }
    job = Job().with_values(**{**defaults, **values})
    return make_plan(job, dev_run=dev_run, speed=SpeedAssumption(mfu=mfu))


def titled(text: str) -> dict[str, str]:
    return {line[:14].strip(): line[14:] for line in text.splitlines() if line[:14].strip()}


def test_the_verdict_comes_first_and_counts_the_findings(tmp_path: Path) -> None:
    good = planned(tmp_path)
    assert plan_text(good).startswith("verdict       ok")
    bad = planned(tmp_path, tensor_model_parallel_size=3)
    codes = [finding.code for finding in bad.findings if finding.severity.value == "error"]
    assert len(codes) == 2
    assert plan_text(bad).startswith("verdict       2 errors: nothing would start")
    assert verdict(bad.findings[:1]) == "1 error: nothing would start"


def test_the_order_is_model_data_schedule_batch_memory_time(tmp_path: Path) -> None:
    names = list(titled(plan_text(planned(tmp_path))))
    order = ["verdict", "model", "data", "schedule", "learning rate", "batch", "memory", "time"]
    assert [name for name in names if name in order] == order


def test_a_rehearsal_gets_no_estimate_of_a_gpu_unless_asked(tmp_path: Path) -> None:
    rows = titled(plan_text(planned(tmp_path)))
    assert rows["time"].startswith("not estimated for a CPU")
    assert rows["memory"].endswith("per process, plus 1 GiB for libraries")
    assert not {"cost", "estimate for"} & set(rows)
    for asked in ({"gpu": "h200"}, {"mfu": 0.4}):
        rows = titled(plan_text(planned(tmp_path, **asked)))
        assert {"cost", "estimate for"} <= set(rows)


def test_variables_are_for_the_verbose(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert "OMP_NUM_THREADS" not in plan_text(plan)
    assert "OMP_NUM_THREADS" in plan_text(plan, verbose=True)


def test_a_dev_run_says_what_it_shrank(tmp_path: Path) -> None:
    full = planned(tmp_path, max_steps=1000, seq_length=2048)
    plan = planned(tmp_path, max_steps=1000, seq_length=2048, dev_run=True)
    old, new = full.architecture["num_layers"], plan.architecture["num_layers"]
    assert f"layers {old} → {new}, " in titled(plan_text(plan))["dev run"]
    assert "tokens per sequence 2,048 → 256" in plan.shrunk
    assert "steps 1,000 → 20" in plan.shrunk
    assert Plan.load(plan.save(tmp_path / "plan.json")).shrunk == plan.shrunk
    assert "dev run" not in titled(plan_text(full))


def test_lines_fit_the_terminal_and_hang_below_their_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    plan = planned(tmp_path, tensor_model_parallel_size=3)
    print_plan(plan)
    lines = screen.getvalue().splitlines()
    assert "\x1b" not in screen.getvalue()
    assert all(len(line) <= 80 or os.sep in line for line in lines)
    (first,) = [number for number, line in enumerate(lines) if line.startswith("learning rate")]
    assert lines[first + 1].startswith(" " * 14)
    assert lines[first + 1][14] != " "
    joined = " ".join(screen.getvalue().split())
    assert joined == " ".join(plan_text(plan).split())


def test_colours_are_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    screen, pipe = Terminal(), io.StringIO()
    for stream in (screen, pipe):
        write_parts([("error", "error[x]: "), ("", "a \x1b[2J file")], stream=stream)
    assert screen.getvalue() == "\x1b[1;31merror[x]: \x1b[0ma \\u001b[2J file\n"
    assert pipe.getvalue() == "error[x]: a \\u001b[2J file\n"
    monkeypatch.setenv("NO_COLOR", "1")
    write_parts([("error", "error[x]: ")], stream=screen)
    assert screen.getvalue().endswith("\nerror[x]: \n")
