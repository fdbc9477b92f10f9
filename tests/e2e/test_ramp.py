"""The batch size ramps as planned, also across a restart, and validation does not depend on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.jobs import TOKENIZER, planned, prepared, train
from forkserver import ForkServer, JobFailed

from nemolaunch.cli.commands.data_audit import main as data_audit
from nemolaunch.cli.commands.tokenize import main as tokenize
from nemolaunch.planning import Plan
from nemolaunch.run import metrics

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
# From 2 to 8 over 12 sequences: a larger batch every 4. Worked out by hand.
RAMP = "2:2:12"
SIZES = [2, 2, 4, 6, 8, 8, 8, 8]
READ = [2, 4, 8, 14, 22, 30, 38, 46]


def rows(plan: Plan) -> list[dict[str, Any]]:
    return [row for row in metrics.current(metrics.read(plan.run.metrics)) if "loss" in row]


def read(ranks: list[dict[str, Any]]) -> list[int]:
    """The samples that all ranks have read, sorted."""
    return sorted(number for rank in ranks for number in rank["samples"])


@pytest.fixture(scope="module")
def whole(
    fork_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, list[dict[str, Any]]]:
    """A run of eight steps on two ranks that was never stopped."""
    plan = planned(tmp_path_factory.mktemp("whole"), data, **VALUES)
    return plan, train(fork_server, plan)


VALUES: dict[str, Any] = {
    "max_steps": 8,
    "num_gpus": 2,
    "global_batch_size": 8,
    "rampup_batch_size": RAMP,
    "checkpoint_every": 3,
}


def test_each_step_reads_the_next_samples(whole: tuple[Plan, list[dict[str, Any]]]) -> None:
    plan, ranks = whole
    assert read(ranks) == list(range(46))
    assert [row["global_batch_size"] for row in rows(plan)] == SIZES
    assert [row["samples"] for row in rows(plan)] == READ
    for row, size in zip(rows(plan), SIZES, strict=True):
        assert row["tokens_per_s"] == pytest.approx(size * 64 / row["step_time_s"], rel=1e-6)


def test_killed_in_the_ramp_and_resumed_is_identical_to_never_stopped(
    whole: tuple[Plan, list[dict[str, Any]]], fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    plan = planned(tmp_path, data, **VALUES)
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=4)
    rest = train(fork_server, prepared(plan))
    for rank, after in enumerate(rest):
        before = whole[1][rank]
        assert after["step"] == [4, 5, 6, 7, 8]
        for key in ("loss", "grad_norm", "lr"):
            assert after[key] == before[key][3:], key
    assert read(rest) == list(range(8, 46))
    assert [row["global_batch_size"] for row in rows(plan)] == SIZES


def test_another_ramp_reads_on_where_the_run_was(
    whole: tuple[Plan, list[dict[str, Any]]], fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    """46 sequences are read; of the new ramp's 120, a larger batch comes every 40."""
    shutil.copytree(whole[0].folder, tmp_path / "run", symlinks=True)
    plan = planned(tmp_path, data, **{**VALUES, "rampup_batch_size": "2:2:120", "max_steps": 10})
    assert "resume-changes" in {finding.code for finding in plan.findings}
    assert plan.batch_sizes.samples(10) == 46 + 4 + 4
    ranks = train(fork_server, plan)
    assert [row["global_batch_size"] for row in rows(plan)][-2:] == [4, 4]
    assert read(ranks) == list(range(46, 54))


def test_validation_and_the_end_of_an_epoch(fork_server: ForkServer, tmp_path: Path) -> None:
    """One epoch, in more steps than the full batch has; the rate is too small to change a weight.

    The losses of all validations are therefore the same, if their samples are.
    """
    texts = tmp_path / "texts"
    texts.mkdir()
    lines = (CORPUS / "en.jsonl").read_text().splitlines(keepends=True)[:25]
    (texts / "en.jsonl").write_text("".join(lines))
    words = ["--hf-tokenizer", TOKENIZER, "--data-prefix", "en", "--output-dir", str(tmp_path)]
    assert tokenize([*words, "--input-dir", str(texts), "--validation-share", "0.2"]) == 0
    values: dict[str, Any] = {
        "max_steps": None, "seq_length": 256, "rampup_batch_size": "4:4:40", "lr": 1e-12, "min_lr": 0.0,
        "micro_batch_size": 2, "split": "60,40,0", "val_check_interval": 3, "limit_val_batches": 1,
        "validation_data": [f"en={tmp_path}/preprocessed/en_validation_text_document"],
    }  # fmt: skip
    plan = planned(tmp_path, f"{tmp_path}/preprocessed/en_text_document", **values)
    samples = plan.batch_sizes.samples(plan.max_steps)
    assert samples < plan.epoch_samples < plan.max_steps * 16
    (result,) = train(fork_server, plan)
    assert sorted(result["samples"]) == list(range(samples))
    (order,) = tmp_path.rglob("*-GPTDataset-train-shuffle_index.npy")
    assert sorted(np.load(order)) == list(range(plan.epoch_samples))
    validations = [row for row in metrics.read(plan.run.metrics) if "val_loss" in row]
    assert [row["step"] for row in validations] == [3, 6, 9, 12]
    for key in ("val_loss/held-out", "val_loss/en"):
        assert len({row[key] for row in validations}) == 1
    assert [row["global_batch_size"] for row in rows(plan)][:4] == [4, 4, 4, 4]


def test_a_stream_feeds_each_step_what_it_asks_for(
    fork_server: ForkServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is checked at each checkpoint that the state saved is that of the samples counted."""
    values: dict[str, Any] = {
        **VALUES, "data_mode": "stream", "num_workers": 0, "shuffle_buffer": 50, "val_check_interval": 2,
        "limit_val_batches": 1,
    }  # fmt: skip
    words = str(CORPUS / "en.jsonl")
    plan = planned(tmp_path, words, **values)
    with pytest.raises(JobFailed, match="-9"):
        train(fork_server, plan, kill_after=4)
    train(fork_server, planned(tmp_path, words, **values))
    assert [row["global_batch_size"] for row in rows(plan)] == SIZES
    assert [row["samples"] for row in rows(plan)] == READ
    capsys.readouterr()
    assert data_audit([str(plan.run.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 46
    assert all(
        e["repeated"] == e["passed_over"] == 0 for source in found["sources"] for e in source["epochs"]
    )
