"""What the tutorials promise holds on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_llama import write_llama
from tutorials import FOLDER, ROOT, typed

from nemolaunch.run import metrics

pytestmark = pytest.mark.long


def results(folder: Path, *names: str) -> list[dict]:
    return [json.loads((folder / name).read_text(encoding="utf-8")) for name in names]


def small_llama(folder: Path) -> Path:
    """A Hugging Face Llama with random weights and the sample tokenizer."""
    from transformers import AutoTokenizer

    end = AutoTokenizer.from_pretrained(ROOT / "examples" / "tokenizer").eos_token_id
    sizes = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 512}
    return write_llama(folder, seed=0, eos_token_id=end, **sizes)


def test_every_tutorial_is_tested() -> None:
    others = ("slurm/test_tutorial.py", "containers/test_gpu_box.py")
    tests = "".join(
        path.read_text() for path in (Path(__file__), *(ROOT / "tests" / name for name in others))
    )
    assert all(f'"{path.name}"' in tests for path in FOLDER.glob("*.md"))


def test_from_text_to_a_model(tmp_path: Path) -> None:
    said = typed("pretrain.md", tmp_path)
    rows = [row for row in metrics.read(tmp_path / "runs" / "first" / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert "It was a bright morning and" in said
    assert "finished" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_continued_pretraining(tmp_path: Path) -> None:
    typed("continue-pretraining.md", tmp_path, MODEL=str(small_llama(tmp_path / "model")))
    before, after = results(tmp_path, "before.json", "after.json")
    assert after["perplexity"] < 0.6 * before["perplexity"]
    (proof,) = results(tmp_path, "start.conversion.json")
    assert proof["verdict"] == "passed"


def test_mixed_data(tmp_path: Path) -> None:
    said = typed("mix-data.md", tmp_path)
    rows = [row for row in metrics.read(tmp_path / "runs" / "mix" / "metrics.jsonl") if "loss" in row]
    assert rows[-1]["step"] == 20
    assert "no row was fed twice in an epoch, none was skipped" in said


def test_a_model_of_your_own(tmp_path: Path) -> None:
    typed("custom-model.md", tmp_path)
    before, after = results(tmp_path, "before.json", "after.json")
    assert before["tokens"] == after["tokens"] > 1000
    assert after["perplexity"] == pytest.approx(before["perplexity"], rel=1e-4)
    assert "finished" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_llama_in_metas_layout(tmp_path: Path) -> None:
    from nemolaunch.cli.commands.convert import main as convert

    model, original = small_llama(tmp_path / "model"), tmp_path / "original"
    assert convert([str(model), str(original), "--to", "meta"]) == 0
    said = typed("meta-checkpoint.md", tmp_path, ORIGINAL=str(original), TOKENIZER=str(model))
    assert "21 tensors are identical" in said
    assert {path.name for path in (tmp_path / "trained").iterdir()} >= {
        "consolidated.00.pth",
        "params.json",
    }
