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
from nemolaunch.trust.checkpoint import check_checkpoint
from nemolaunch.trust.context import context_fault

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


def test_arguments_are_named_by_the_metadata_and_not_by_labels(checkpoint: Path) -> None:
    """fiddle ignores the labels of values."""
    path = checkpoint / "context" / "io.json"
    content = json.loads(path.read_text())
    objects = content["objects"]
    call = next(o for o in objects.values() if o.get("type", {}).get("name") == "Config" and o["items"])
    about = objects[call["metadata"]["key"]]
    names = objects[dict(about["items"])["Attr(name='argument_names')"]["key"]]
    names["items"][0][1] = "trust_remote_code"
    call["items"][0][1] = {"type": "leaf", "value": True}
    path.write_text(json.dumps(content))
    with pytest.raises(NemolaunchError, match="trust_remote_code"):
        check_checkpoint(checkpoint)


def test_a_type_that_is_no_reference_is_imported_all_the_same(checkpoint: Path) -> None:
    """NeMo locates module.name of every object's type before fiddle looks at its kind."""
    name_in_context(checkpoint, "", "", type={"module": "antigravity", "name": "x"}, items=[])
    with pytest.raises(NemolaunchError, match=r"antigravity\.x"):
        check_checkpoint(checkpoint)


@pytest.mark.parametrize("where", ["part", "../part", "/absolute"])
def test_pickles_in_a_context(where: str, checkpoint: Path, tmp_path: Path) -> None:
    """NeMo unpickles the file that an object's only item names, and allows all of torch and cloudpickle there."""
    name = str(tmp_path / "part") if where == "/absolute" else where
    (checkpoint / "context" / name).write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    kind = {"type": "pyref", "module": "nemo.lightning.pytorch.trainer", "name": "Trainer"}
    name_in_context(checkpoint, "", "", type=kind, items=[["IdentityElement()", name]], metadata=None)
    expected = r"subprocess\.call" if where == "part" else "not in the checkpoint"
    if where == "../part":
        (checkpoint / "part").rename(tmp_path / "outside")
        (checkpoint / "part").symlink_to(tmp_path / "outside")
    with pytest.raises(NemolaunchError, match=expected):
        check_checkpoint(checkpoint)


@pytest.mark.parametrize("what", ["called", "trusting"])
def test_a_pickle_in_a_context_that_calls_what_it_may_only_name(what: str, checkpoint: Path) -> None:
    """AutoTokenizer runs code if it is called with trust_remote_code=True."""
    name = b"nemo.collections.common.tokenizers.huggingface.auto_tokenizer\nAutoTokenizer\n"
    called, named = b"c" + name + b"(S'x'\ntR.", b"(c" + name + b"Vtrust\\u005fremote_code\nt."
    (checkpoint / "context" / "part").write_bytes(called if what == "called" else named)
    kind = {"type": "pyref", "module": "nemo.lightning.pytorch.trainer", "name": "Trainer"}
    name_in_context(checkpoint, "", "", type=kind, items=[["IdentityElement()", "part"]], metadata=None)
    with pytest.raises(NemolaunchError, match=r"AutoTokenizer|trust_remote_code"):
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
    with pytest.raises(NemolaunchError, match=f"weights/{file} names subprocess.call"):
        check_checkpoint(checkpoint)
    with pytest.raises(NemolaunchError, match=r"subprocess\.call"):
        convert(checkpoint, tmp_path / "out", "hf", Options())
    assert not (tmp_path / "out").exists()
    assert not marker.exists()


def replace_object(checkpoint: Path, content: bytes, name: str) -> None:
    """Put other bytes where `.metadata` says that an object is."""
    weights = checkpoint / "weights"
    metadata = pickle.loads((weights / ".metadata").read_bytes())
    index = next(i for i in metadata.storage_data if name in i.fqn)
    (weights / "other.distcp").write_bytes(content)
    info = metadata.storage_data[index]
    info.relative_path, info.offset, info.length = "other.distcp", 0, len(content)
    (weights / ".metadata").write_bytes(pickle.dumps(metadata))


def saved(value: Any, **options: Any) -> bytes:
    import io

    import torch

    content = io.BytesIO()
    torch.save(value, content, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["object", "tensor of a pickle", "part of a tensor", "stream", "old format"])
def test_objects_among_the_tensors(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    """torch loads them without restrictions, and Transformer Engine unpickles the bytes of `_extra_state`."""
    import io

    import torch

    trap = Runs(tmp_path / "ran")
    data = pickle.dumps(trap)
    content = {
        "object": lambda: saved(trap),
        "tensor of a pickle": lambda: saved(torch.frombuffer(bytearray(data), dtype=torch.uint8)),
        "part of a tensor": lambda: saved(torch.frombuffer(bytearray(b"." + data), dtype=torch.uint8)[1:]),
        "stream": lambda: saved(io.BytesIO(saved(trap))),
        "old format": lambda: saved(trap, _use_new_zipfile_serialization=False),
    }[kind]()
    replace_object(checkpoint, content, "_extra_state")
    with pytest.raises(NemolaunchError, match=r"other\.distcp|\.metadata cannot be read"):
        check_checkpoint(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_torch_reads_in_another_way(checkpoint: Path, tmp_path: Path) -> None:
    """A zip archive may have anything before it: torch takes such a file for pickles in a row."""
    import torch

    trap = saved(Runs(tmp_path / "ran"), _use_new_zipfile_serialization=False)
    (checkpoint / "weights" / "common.pt").write_bytes(trap + saved({"a": torch.ones(1)}))
    with pytest.raises(NemolaunchError, match=r"common\.pt"):
        check_checkpoint(checkpoint)


def test_another_backend_has_another_reader(checkpoint: Path) -> None:
    (checkpoint / "weights" / "metadata.json").write_text('{"sharded_backend": "zarr"}')
    with pytest.raises(NemolaunchError, match="sharded_backend 'zarr'"):
        check_checkpoint(checkpoint)
