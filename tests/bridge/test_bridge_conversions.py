"""Hugging Face ↔ Megatron-Bridge, compared with Bridge's own `AutoBridge`, tensor by tensor and bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON
from forkserver import ForkServer
from nemo2.convert_support import assert_same_tensors, tensors
from nemo2.model_zoo import ZOO

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.checkpoint.storage.dcp import DcpSource

MODELS = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3 narrow heads",
    "qwen3 moe, probabilities not normalised",
    "nemotron",
)
EXPORTED = ("gemma", "gemma 2")  # with classes of Bridge's own, which nemolaunch reads
ROUNDING = 1e-6  # of float32 logits up to about 1
COMMON = "common_state/shard_0_1"  # which is in common.pt of what nemolaunch writes, for older releases of Bridge too


@pytest.fixture(scope="module")
def judged(
    bridge_server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, float]]:
    """By model, its folder, and the largest difference of logits: `source`, and what each tool made of it."""
    folders = {name: tmp_path_factory.mktemp("model") for name in (*MODELS, *EXPORTED)}
    for name, folder in folders.items():
        ZOO[name].write(folder / "source")
        if name in MODELS:
            convert(folder / "source", folder / "ours", "bridge")
    arguments = {"folders": [str(folder) for folder in folders.values()]}
    (differences,) = bridge_server.run("bridge.autobridge_job:judge", arguments, timeout=300)
    return {name: (folders[name], found) for name, found in zip(folders, differences, strict=True)}


def stored(checkpoint: Path) -> tuple[dict[str, Any], list[str]]:
    """The tensors, and the names of the objects."""
    source = DcpSource(checkpoint / "iter_0000000")
    return {name: source.read(name) for name in source.tensors}, sorted(source.objects)


def assert_as_autobridge(folder: Path) -> None:
    """`ours`, which nemolaunch imported, is what Bridge imported as `theirs`, and Bridge exports it as it was."""
    (ours, our_objects), (theirs, their_objects) = (stored(folder / side) for side in ("ours", "theirs"))
    assert_same_tensors(theirs, ours)
    assert our_objects == [name for name in their_objects if name != COMMON]
    # the model that Bridge builds from our run_config.yaml and loads our weights into, exported by Bridge
    assert_same_tensors(tensors(folder / "source"), tensors(folder / "back"))


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it")
@pytest.mark.parametrize("name", MODELS)
def test_as_autobridge_does(name: str, judged: dict[str, tuple[Path, float]]) -> None:
    folder, difference = judged[name]
    assert_as_autobridge(folder)
    assert difference <= ROUNDING


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it")
@pytest.mark.parametrize("name", [*MODELS, *EXPORTED])
def test_exports_what_autobridge_imported(name: str, judged: dict[str, tuple[Path, float]]) -> None:
    folder, _ = judged[name]
    convert(folder / "theirs", folder / "exported", "hf", Options(tokenizer=folder / "source"))
    assert_same_tensors(tensors(folder / "source"), tensors(folder / "exported"))
