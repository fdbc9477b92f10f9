"""Training from a Hugging Face model with either backend, and everything that reads Bridge's checkpoints afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from bridge.test_same_training import BRIDGE, train_bridge
from e2e.jobs import TOKENIZER, planned
from e2e.jobs import train as train_nemo
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors

from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.convert.summary import summarise
from nemolaunch.cli.main import main
from nemolaunch.planning import Plan

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it"
)

ROUNDING = 2e-6  # of float32 logits up to about 2


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Hugging Face model `hf`, converted to `nemo2` and to `bridge`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.5) if "norm" not in name else parameter.add_(torch.randn_like(parameter) * 0.1)
    shutil.copytree(TOKENIZER, folder / "hf")
    model.save_pretrained(folder / "hf")
    for form in ("nemo2", "bridge"):
        convert(folder / "hf", folder / form, form)
    return folder


def job(folder: Path, data: str, source: Path, form: str, **values: Any) -> Plan:
    """A plan of the model that starts from its weights in one of the formats."""
    folder.mkdir(exist_ok=True)
    backend = BRIDGE if form == "bridge" else {}
    model = {
        "model_name": "hf",
        "hf_model_id": str(source / "hf"),
        "nemo_model": str(source / form),
        "seq_length": 64,
    }
    return planned(folder, data, **{**model, **backend, "max_steps": 3, **values})


@pytest.fixture(scope="module")
def bridge_run(
    bridge_server: ForkServer, data: str, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, dict[str, Any]]:
    """A run of three steps from these weights, and what its steps had."""
    plan = job(tmp_path_factory.mktemp("run"), data, source, "bridge", checkpoint_every=2)
    return plan, train_bridge(bridge_server, plan)[0]


def test_both_start_from_the_same_weights(
    fork_server: ForkServer,
    bridge_run: tuple[Plan, dict[str, Any]],
    data: str,
    source: Path,
    tmp_path: Path,
) -> None:
    """Every loss is that of NeMo 2 from the same model: weights, and a new optimizer and schedule."""
    (nemo,) = train_nemo(fork_server, job(tmp_path / "run", data, source, "nemo2"))
    _, bridge = bridge_run
    assert bridge["step"] == [1, 2, 3]
    assert bridge["loss"] == nemo["loss"]
    assert bridge["grad_norm"] == nemo["grad_norm"]


def test_resumes_from_its_own_checkpoint(
    bridge_server: ForkServer, bridge_run: tuple[Plan, dict[str, Any]], data: str, source: Path
) -> None:
    """Not from the weights again, and with the optimizer: the last step, trained again, has the same loss."""
    plan, trained = bridge_run
    kept = plan.run.root.parent / "copy" / "run"
    shutil.copytree(plan.run.root, kept)
    shutil.rmtree(kept / "checkpoints" / "iter_0000003")
    (kept / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("2")
    state = (kept / "checkpoints" / "iter_0000002" / "train_state.pt").read_bytes()
    (kept / "checkpoints" / "latest_train_state.pt").write_bytes(state)
    (kept / "finished.json").unlink(missing_ok=True)
    again = job(kept.parent, data, source, "bridge", checkpoint_every=2)
    (found,) = train_bridge(bridge_server, again)
    assert found["step"] == [3]
    assert found["loss"] == trained["loss"][2:]


def test_inspect(bridge_run: tuple[Plan, dict[str, Any]], source: Path) -> None:
    plan, _ = bridge_run
    found = summarise(plan.run.root)  # the newest
    assert (found.format, found.model, found.step, found.samples) == ("bridge", "LlamaModel", 3, 48)
    assert found.resumable
    before = summarise(source / "bridge")
    assert (before.step, before.optimizer, before.tensors) == (None, False, found.tensors)
    assert before.parameters == found.parameters == sum(t.numel() for t in tensors(source / "hf").values())


def test_export_of_any_of_the_folders(bridge_run: tuple[Plan, dict[str, Any]], tmp_path: Path) -> None:
    """The run, its folder of checkpoints and the newest one are the same, which computes what Bridge computes."""
    plan, _ = bridge_run
    newest = plan.run.last_checkpoint()
    assert newest is not None
    for number, path in enumerate((plan.run.root, plan.run.checkpoints, newest)):
        words = ["convert", str(path), str(tmp_path / str(number)), "--verify", "bits" if number else "full"]
        assert main(words) == 0
        assert_same_tensors(tensors(tmp_path / "0"), tensors(tmp_path / str(number)))
    report = json.loads((tmp_path / "0.conversion.json").read_text())
    assert report["checks"]["logits"]["outcome"] == "passed"
    assert report["checks"]["logits"]["max difference"] <= ROUNDING
    older = plan.run.checkpoints / "iter_0000002"
    convert(older, tmp_path / "older", "hf")
    name = "model.norm.weight"
    assert not tensors(tmp_path / "older")[name].equal(tensors(tmp_path / "0")[name])


def test_evaluation_during_the_run(
    bridge_run: tuple[Plan, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both checkpoints are exported and evaluated; the perplexity of the older one is another one."""
    plan, _ = bridge_run
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n")
    words = ["eval", "watch", str(plan.run.root), "--once", "--data", str(tmp_path / "text.txt"), "--json"]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["step"] for row in rows] == [2, 3]
    assert rows[0]["eval_perplexity"] != rows[1]["eval_perplexity"]
