"""A checkpoint that names what NeMo's own do not is refused before anything loads it, and nothing of it is run."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nemo2.model_zoo import ZOO

from nemolaunch.checkpoint.convert.convert import Options, convert
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.checkpoint import look_at_checkpoint
from nemolaunch.trust.checkpoint import check_checkpoint, context_fault, pickled_names

REFUSED = [
    ("subprocess", "call"),
    ("os", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch", "os.system"),
    ("nemo.utils.exp_manager", "subprocess.run"),
    ("nemo.lightning.pytorch.trainer", "Trainer.__init__.__globals__"),
    ("megatron.core.optimizer.optimizer_config", "os.system"),
    ("importlib", "import_module"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    ZOO["llama"].write(folder / "source")
    convert(folder / "source", folder / "nemo", "nemo2", Options())
    return folder / "nemo"


@pytest.fixture
def checkpoint(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    import shutil

    return Path(shutil.copytree(sound, tmp_path / "nemo"))


def name_in_context(folder: Path, module: str, name: str, **entry: Any) -> None:
    path = folder / "context" / "io.json"
    content = json.loads(path.read_text())
    content["objects"]["added"] = entry or {"type": "pyref", "module": module, "name": name}
    path.write_text(json.dumps(content))


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.marker)],)


def test_our_own_is_sound(sound: Path) -> None:
    check_checkpoint(sound)
    assert context_fault(sound) is None


@pytest.mark.parametrize(("module", "name"), REFUSED)
def test_a_context_that_names_something_else(module: str, name: str, checkpoint: Path) -> None:
    name_in_context(checkpoint, module, name)
    with pytest.raises(NemolaunchError, match=f"io.json names {module}.{name}, which"):
        check_checkpoint(checkpoint)
    assert f"{module}.{name}" in str(look_at_checkpoint(str(checkpoint)).error)
    assert look_at_checkpoint(str(checkpoint), trusted=True).error is None


def test_a_context_that_trusts_remote_code(checkpoint: Path) -> None:
    items = [["Attr(name='trust_remote_code')", {"type": "leaf", "value": True}]]
    name_in_context(checkpoint, "", "", type="x", items=items)
    with pytest.raises(NemolaunchError, match="trust_remote_code"):
        check_checkpoint(checkpoint)


def test_deep_nesting_is_no_traceback(checkpoint: Path) -> None:
    (checkpoint / "context" / "io.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(NemolaunchError, match=r"io\.json"):
        check_checkpoint(checkpoint)


@pytest.mark.parametrize("file", [".metadata", "common.pt", "other.pt"])
def test_pickles_are_not_run(file: str, checkpoint: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = checkpoint / "weights" / file
    if file == ".metadata":
        metadata = pickle.loads(path.read_bytes())
        metadata.planner_data = Runs(marker)
        path.write_bytes(pickle.dumps(metadata))
    else:
        import torch

        torch.save({"state": Runs(marker)}, path)
    assert ("subprocess", "call") in pickled_names(path)
    with pytest.raises(NemolaunchError, match=f"weights/{file} names subprocess.call"):
        check_checkpoint(checkpoint)
    with pytest.raises(NemolaunchError, match=r"subprocess\.call"):
        convert(checkpoint, tmp_path / "out", "hf", Options())
    assert not (tmp_path / "out").exists()
    assert not marker.exists()
