"""Evaluation of NeMo 2 checkpoints: after export, and as the checkpoints of a run appear."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.jobs import ROOT, planned, train
from forkserver import ForkServer

from nemolaunch.cli.commands import eval as eval_command
from nemolaunch.observe.reader import read_history
from nemolaunch.planning import Plan

TEXTS = str(ROOT / "examples" / "corpus" / "en.jsonl")


@pytest.fixture(scope="module")
def run(fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Train a run of four steps with two checkpoints."""
    plan = planned(tmp_path_factory.mktemp("run"), data, max_steps=4, checkpoint_every=2, lr=1e-2)
    train(fork_server, plan)
    return plan


def test_a_nemo_checkpoint_and_its_export_agree(
    fork_server: ForkServer, run: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = run.run.last_checkpoint()
    assert checkpoint is not None
    words = ["ppl", str(checkpoint), "--data", TEXTS, "--limit", "2", "--context-length", "64", "--json"]
    assert eval_command.main(words) == 0
    exported = json.loads(capsys.readouterr().out)
    given = {"checkpoint": str(checkpoint.resolve()), "data": TEXTS, "documents": 2, "context_length": 64}
    (native,) = fork_server.run("e2e.nemo_perplexity:score", given)
    assert native["tokens"] == exported["tokens"]
    assert native["prefix_token"] == exported["prefix_token"]
    assert exported["perplexity"] == pytest.approx(native["perplexity"], rel=1e-4)


def test_samples_are_made_beside_a_run(run: Plan, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asked = {"checkpoint_every": 2, "sample_every": 4, "sample_prompt": ("It was", "Once upon")}
    file = replace(run, job=run.job.with_values(**asked)).save(tmp_path / "plan.json")
    words = [sys.executable, "-m", "nemolaunch.evaluation.beside", str(file)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False
    )  # ends because the run has finished
    assert done.returncode == 0, done.stderr
    (row,) = read_history(run.run.root).evaluations
    assert row["step"] == 4
    assert [sample["prompt"] for sample in row["samples"]] == ["It was", "Once upon"]
    events = EventAccumulator(str(run.run.tensorboard / "evaluations")).Reload()
    (shown,) = events.Tensors("samples/1")
    assert shown.step == 4
    assert shown.tensor_proto.string_val[0].decode() == f"**Once upon**{row['samples'][1]['text']}"
    run.run.evaluations.unlink()  # for the next test


def test_watch_evaluates_each_checkpoint_once(run: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["watch", str(run.run.root), "--data", TEXTS, "--limit", "1", "--prompt", "It was"]
    words += ["--max-new-tokens", "4"]
    assert eval_command.main(words) == 0  # exits because the run has finished
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["step 2", "step 4"]
    assert eval_command.main(words) == 0
    again = capsys.readouterr()
    assert again.out == ""
    assert "no new checkpoint to evaluate" in again.err

    history = read_history(run.run.root)
    assert list(history.series["eval_perplexity"].steps) == [2, 4]
    assert [len(row["samples"]) for row in history.evaluations] == [1, 1]
    assert not Path(run.run.checkpoints / "hf").exists()
