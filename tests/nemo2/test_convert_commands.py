"""The conversion scripts as users run them: named classes, overwriting, interruption, two at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from nemo2.convert_support import assert_same_tensors, run, tensors
from nemo2.model_zoo import ZOO

REPOSITORY = Path(__file__).parents[2]
TO_NEMO2 = REPOSITORY / "train/llm/ckpt_conversion/convert_from_hf_to_nemo2.py"
TO_HF = REPOSITORY / "ckpt_conversion/convert_from_nemo2_to_hf.py"


def test_there_and_back(tmp_path: Path) -> None:
    """A downloaded folder with sub-folders, named classes, overwriting, and the logits of both sides."""
    shared = Path("/tmp/nemo_tokenizer")  # where NeMo's own importers put every tokenizer
    existed = shared.exists()
    source, nemo, back = tmp_path / "source", tmp_path / "nemo", tmp_path / "back"
    ZOO["llama bf16"].write(source)
    (source / ".cache" / "huggingface").mkdir(parents=True)
    (source / "original").mkdir()
    (source / "original" / "params.json").write_text("{}")
    done = run(TO_NEMO2, "--source", source, "--output_path", nemo, "--model-name", "LlamaModel")
    assert done.returncode == 0, done.stderr
    assert "→ LlamaModel" in done.stderr
    assert sorted(p.name for p in nemo.iterdir()) == ["context", "weights"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nemo", "nemo.conversion.json", "source"]
    logits = json.loads((tmp_path / "nemo.conversion.json").read_text())["checks"]["logits"]
    assert logits["outcome"] == "passed"
    assert logits["max difference"] < 1e-5
    assert abs(logits["KL"]) < 1e-6
    assert shared.exists() == existed

    done = run(TO_HF, "--source", nemo, "--output-path", back, "--verify", "bits", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "passed"
    assert_same_tensors(tensors(source), tensors(back))
    refused = run(TO_HF, "--source", nemo, "--output-path", back)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    (back / "config.json").write_text("{}")
    done = run(TO_HF, nemo, back, "--overwrite", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert json.loads((back / "config.json").read_text())["model_type"] == "llama"
    assert json.loads((tmp_path / "back.conversion.json").read_text())["verdict"] == "not verified"


SLOW = """
import contextlib, sys, time
from nemolaunch.cli.commands import convert
from nemolaunch.cli.views import progress

@contextlib.contextmanager
def bar(label, total):
    def advance(count):
        print(label, flush=True)
        time.sleep(60)
    yield advance

assert progress.byte_bar
progress.byte_bar = bar
sys.exit(convert.main(sys.argv[1:]))
"""


def test_a_stopped_conversion_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM during writing, which a slow progress display makes sure of."""
    source, nemo = tmp_path / "source", tmp_path / "nemo"
    ZOO["llama"].write(source)
    process = subprocess.Popen([sys.executable, "-c", SLOW, source, nemo], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert list(tmp_path.glob(".nemo.partial-*/new/weights/*.distcp"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert [p.name for p in tmp_path.iterdir()] == ["source"]
    done = run(TO_NEMO2, source, nemo, "--verify", "bits")
    assert done.returncode == 0, done.stderr


def test_two_at_once(tmp_path: Path) -> None:
    """Two conversions of different models into the same folder do not interfere."""
    for name in ("llama", "qwen2"):
        ZOO[name].write(tmp_path / name)
    running = [
        subprocess.Popen(
            [sys.executable, TO_NEMO2, tmp_path / name, tmp_path / f"{name}-nemo", "--verify", "bits"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("llama", "qwen2")
    ]
    for process in running:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
    for name in ("llama", "qwen2"):
        tokenizer = tmp_path / f"{name}-nemo" / "context" / "tokenizer" / "tokenizer.json"
        assert tokenizer.read_bytes() == (tmp_path / name / "tokenizer.json").read_bytes()
