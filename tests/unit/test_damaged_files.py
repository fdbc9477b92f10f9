"""Damaged files end in one line that names them, never in a traceback: `tests/damage.py` has the files and commands."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
from damage import KINDS, fault_of, tried, write_samples
from inside import inside

from nemolaunch.cli.main import main

FEW, MANY = 4, 120


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_few_changes(name: str, samples: Path) -> None:
    assert list(tried(name, samples, FEW)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_many_changes(name: str, samples: Path) -> None:
    """Two thousand over all kinds."""
    assert list(tried(name, samples, MANY, seed=2)) == []


def said(command: str, folder: Path) -> tuple[int, str]:
    """Return a command's exit code and all that it printed."""
    shown = io.StringIO()
    with inside(folder), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        code = main(command.split())
    return code, shown.getvalue()


@pytest.mark.parametrize(
    ("path", "content", "command", "place"),
    [
        ("hf/config.json", "[" * 200_000, "inspect checkpoint hf", "config.json"),
        ("hf/config.json", '{"model_type": "llama", "num_hidden_layers": 1000000000000}',
         "count-params -M hf --hf-model-id hf", "num_hidden_layers is 1,000,000,000,000"),
        ("sharded/model.safetensors.index.json", "{}", "inspect checkpoint sharded", "model.safetensors.index.json"),
        ("nemo/context/io.json", "[" * 200_000, "convert nemo out --to hf --verify none", "io.json"),
        ("nemo/context/model.yaml", "a: " + "[" * 20_000, "convert nemo out --to hf --verify none", "model.yaml"),
        ("runs/run/plan.json", "[" * 200_000, "pretrain --plan runs/run/plan.json --dry-run", "plan.json"),
        ("job.yaml", "a: " + "[" * 20_000, "pretrain --config job.yaml -M nano --dry-run", "job.yaml"),
        ("job.yaml", "a: 2026-99-99", "pretrain --config job.yaml -M nano --dry-run", "job.yaml"),
    ],
)  # fmt: skip
def test_depth_and_size(
    path: str, content: str, command: str, place: str, samples: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(samples, tmp_path / "copy"))
    (folder / path).write_text(content)
    code, shown = said(command, folder)
    assert code in (1, 2)
    assert place in shown


def test_one_damaged_run_is_one_row(samples: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(samples / "runs", tmp_path / "runs"))
    rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    rows.append(json.dumps({"step": 4, "tame": 1.0, "loss": 3.0, "tokens_per_s": "x", "step_time_s": {}}))
    (folder / "run" / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    code, shown = said(f"status --runs-dir {folder}", tmp_path)
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()] in (
        ["RUN", "run", "other"],
        ["RUN", "other", "run"],
    )


def test_a_commands_fault_is_seen(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: what ends in a traceback is found."""
    monkeypatch.setattr("damage.main", lambda argv: 1 // 0)
    assert "ZeroDivisionError" in str(fault_of("status", samples))
