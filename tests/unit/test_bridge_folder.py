"""Checkpoints of Megatron-Bridge without Bridge: round trips of all families, and what is refused.

That the tensors and the configuration are what Bridge itself writes and reads is in `tests/bridge`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jobs import TOKENIZER, write_data
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.model_zoo import ZOO

from nemolaunch.checkpoint.convert.compare import CheckpointPair
from nemolaunch.checkpoint.convert.convert import convert
from nemolaunch.checkpoint.convert.summary import summarise
from nemolaunch.checkpoint.megatron.completeness import incomplete
from nemolaunch.cli.main import main
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.checkpoint import look_at_checkpoint
from nemolaunch.families.bridge_classes import PLAIN

# Megatron has old_context_len 8192 in its code, and these models have 8
OTHER_ROPE = ("llama 3.2", "llama nemotron")
FAMILIES = [name for name, model in ZOO.items() if model.kind in PLAIN and name not in OTHER_ROPE]
Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    """Every bit and every field comes back; the report says so as well."""
    ZOO[name].write(tmp_path / "source")
    for source, target, to in (("source", "bridge", "bridge"), ("bridge", "back", "hf")):
        assert convert(tmp_path / source, tmp_path / target, to)["verdict"] == "passed"
    assert_same_tensors(tensors(tmp_path / "source"), tensors(tmp_path / "back"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    ZOO["llama"].write(folder / "source")
    convert(folder / "source", folder / "bridge", "bridge")
    return folder


@pytest.fixture
def bridge(sound: Path, tmp_path: Path) -> Path:
    """A folder with a checkpoint that a test may change."""
    return Path(shutil.copytree(sound / "bridge", tmp_path / "bridge"))


def changed(folder: Path, change: Change) -> None:
    path = folder / "iter_0000000" / "run_config.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def test_also_from_and_to_nemo2(sound: Path, tmp_path: Path) -> None:
    """A checkpoint of either framework becomes one of the other; the model is the same in all formats."""
    convert(sound / "bridge", tmp_path / "nemo", "nemo2")
    convert(tmp_path / "nemo", tmp_path / "bridge", "bridge")
    for one, other in (("nemo", "bridge"), ("bridge", "nemo")):
        pair = CheckpointPair(tmp_path / one, tmp_path / other)
        assert not pair.differences().any
        pair.close()


def test_a_checkpoint_that_was_taken_from_its_folder(bridge: Path, tmp_path: Path) -> None:
    """One that lies alone is complete if its files are; in its folder, Bridge's record says how far it got."""
    alone = Path(shutil.copytree(bridge / "iter_0000000", tmp_path / "mine"))
    assert summarise(alone).parameters == summarise(bridge).parameters
    shutil.copytree(bridge / "iter_0000000", bridge / "iter_0000005")
    assert summarise(bridge).path.endswith("iter_0000000")
    assert incomplete(bridge / "iter_0000005") == "its save did not end"
    with pytest.raises(NemolaunchError, match="its save was interrupted"):
        summarise(bridge / "iter_0000005")
    assert "interrupted" in str(look_at_checkpoint(str(bridge / "iter_0000005")).error)
    (bridge / "latest_checkpointed_iteration.txt").write_text("5")
    assert summarise(bridge).path.endswith("iter_0000005")
    assert incomplete(bridge / "iter_0000005") is None


def test_a_truncated_file(bridge: Path) -> None:
    (file,) = (bridge / "iter_0000000").glob("*.distcp")
    file.write_bytes(file.read_bytes()[:-100])
    assert "truncated" in str(incomplete(bridge / "iter_0000000"))
    with pytest.raises(NemolaunchError, match="truncated"):
        summarise(bridge)


def use_mup(content: dict[str, Any]) -> None:
    content["model"]["use_mup"] = True


def other_provider(content: dict[str, Any]) -> None:
    content["model"]["_target_"] = "megatron.bridge.models.gemma.gemma3_provider.Gemma3ModelProvider"


def adapter(content: dict[str, Any]) -> None:
    content["peft"] = {"_target_": "megatron.bridge.peft.lora.LoRA"}


def other_activation(content: dict[str, Any]) -> None:
    content["model"]["activation_func"]["_target_"] = "mine.silu"


def no_model(content: dict[str, Any]) -> None:
    del content["model"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (use_mup, "use_mup is True"),
        (other_provider, "Gemma3ModelProvider"),
        (adapter, "LoRA"),
        (other_activation, "mine.silu"),
        (no_model, "does not describe a model"),
    ],
)
def test_refused(change: Change, said: str, bridge: Path, tmp_path: Path) -> None:
    changed(bridge, change)
    with pytest.raises(NemolaunchError, match=said):
        convert(bridge, tmp_path / "hf", "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [*((n, "old_context_len") for n in OTHER_ROPE), ("gemma", "gemma"), ("deepseek v2 lite", "q_lora_rank")],
)
def test_models_that_bridge_lacks(name: str, said: str, tmp_path: Path) -> None:
    ZOO[name].write(tmp_path / "source")
    with pytest.raises(NemolaunchError, match=said):
        convert(tmp_path / "source", tmp_path / "bridge", "bridge")
    assert not (tmp_path / "bridge").exists()


def test_the_start_of_a_training(bridge: Path) -> None:
    """What planning knows of it: the model in NeMo's terms, and which backend reads it."""
    found = look_at_checkpoint(str(bridge))
    assert (found.error, found.backend, found.step) == (None, "bridge", 0)
    assert found.path == str(bridge / "iter_0000000")
    assert (found.shape["num_layers"], found.shape["hidden_size"]) == (2, 64)
    assert found.fields["rotary_base"] == 10000.0


def test_weights_of_the_other_backend(
    sound: Path, bridge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each backend is told how to convert the other's checkpoints."""
    convert(sound / "source", tmp_path / "nemo", "nemo2")
    (tmp_path / "data").mkdir()
    prefix = write_data(tmp_path / "data")
    for backend, folder in (("nemo2", bridge / "iter_0000000"), ("bridge", tmp_path / "nemo")):
        words = [
            "-M",
            "nano",
            "--hf-model-id",
            str(TOKENIZER),
            "--dataset-dir",
            str(prefix),
            "--max-steps",
            "3",
        ]
        words += ["--nemo-model", str(folder), "--backend", backend, "--dry-run", "--num-gpus", "1"]
        assert main(["pretrain", *words]) == 1
        shown = "".join(capsys.readouterr())
        assert "checkpoint-of-other-backend" in shown
        assert f"--to {backend}" in shown
