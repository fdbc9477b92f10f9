"""Names that lead out of a folder, headers that contradict themselves, and time that grows with the file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo2.model_zoo import ZOO

from nemolaunch.checkpoint.convert.bare import model_only
from nemolaunch.checkpoint.hf import bidirectional
from nemolaunch.checkpoint.hf.folder import read_folder
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.safetensors import read_header
from nemolaunch.checkpoint.storage.tensors import TensorInfo, info_of
from nemolaunch.checkpoint.storage.torch_file import TorchFile
from nemolaunch.errors import NemolaunchError
from nemolaunch.tokenizer.files import copy_files
from nemolaunch.trust.links import is_within


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ZOO["llama"].write(folder / "hf")
    return folder / "hf"


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "hf"))


def to_shards(model: Path, name: str) -> None:
    """Give a model an index that names one other file."""
    from safetensors import safe_open

    weights = model / "model.safetensors"
    names = list(safe_open(weights, "numpy").keys())
    index = {"weight_map": dict.fromkeys(names, name)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    weights.rename(model.parent / "outside.safetensors")


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/absolute", "a/../../outside.safetensors", "link"]
)
def test_an_index_names_files_of_its_folder(name: str, model: Path) -> None:
    outside = model.parent / "outside.safetensors"
    to_shards(model, str(outside) if name == "/absolute" else name)
    (model / "a").mkdir()
    (model / "link").symlink_to(outside)
    with pytest.raises(NemolaunchError, match=f"which is not in {model}"):
        read_folder(model)


def test_weights_that_are_a_link(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.rename(model.parent / "outside.safetensors")
    weights.symlink_to(model.parent / "outside.safetensors")
    with pytest.raises(NemolaunchError, match="is a link to"):
        read_folder(model)
    weights.unlink()
    (model.parent / "outside.safetensors").rename(model / "other.safetensors")
    weights.symlink_to("other.safetensors")
    assert read_folder(model).weights == (weights,)


def test_a_snapshot_of_the_hub_links_to_its_blobs(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--me--x" / "snapshots" / "0123"
    blobs = tmp_path / "models--me--x" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in model.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert read_folder(snapshot).weights
    assert not is_within(model, snapshot)


def test_a_tokenizer_is_not_copied_from_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").symlink_to(secret)
    with pytest.raises(NemolaunchError, match="is a link to"):
        copy_files(tmp_path / "tokenizer", tmp_path / "copy")


def write_dcp(folder: Path) -> None:
    folder.mkdir()
    tensors = {"w": torch.ones(2, 2)}
    sink = DcpSink(folder, {name: info_of(tensor) for name, tensor in tensors.items()})
    sink.write("w", tensors["w"])
    sink.finish()


@pytest.mark.parametrize("name", ["../outside.distcp", "/etc/hostname", "link.distcp"])
def test_a_distributed_checkpoint_names_files_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    write_dcp(folder)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    (folder / "__0_0.distcp").rename(tmp_path / "outside.distcp")
    (folder / "link.distcp").symlink_to(tmp_path / "outside.distcp")
    for info in metadata.storage_data.values():
        info.relative_path = name
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(NemolaunchError, match="which is not in"):
        DcpSource(folder)


def test_a_size_beyond_the_file_is_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    folder = tmp_path / "dcp"
    write_dcp(folder)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.state_dict_metadata["w"].size = torch.Size([10**12, 2])
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(NemolaunchError, match=r"\.metadata is damaged"):
        DcpSource(folder)
    torch.save(torch.ones(1).expand(10**10), tmp_path / "a.pt")
    with pytest.raises(NemolaunchError, match=r"a\.pt is not a torch\.save file, or it is damaged"):
        TorchFile(tmp_path / "a.pt", OpenFiles())


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "num_bytes"),
    [
        (json.dumps({"a": F32, "b": F32}), 4),  # the same bytes twice
        (json.dumps({"a": F32, "b": {**F32, "data_offsets": [8, 12]}}), 12),  # a gap
        (json.dumps({"a": {**F32, "shape": [2]}}), 4),  # a span that is not that of the shape
        (json.dumps({"a": {**F32, "shape": [2**40, 2**40]}}), 4),
        (json.dumps({"a": F32}), 8),  # bytes that belong to nothing
        (f'{{"a": {json.dumps(F32)}, "a": {json.dumps({**F32, "dtype": "I32"})}}}', 4),  # one name twice
        (json.dumps({"a": {**F32, "dtype": "F128"}}), 4),
        ("[" * 100_000, 4),
    ],
)
def test_headers_of_safetensors(header: str, num_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(num_bytes))
    with pytest.raises(NemolaunchError, match=r"a\.safetensors"):
        read_header(path)


class Counted(str):
    """A name that counts how often it is looked up."""

    num_hashes = 0

    def __hash__(self) -> int:
        Counted.num_hashes += 1
        return str.__hash__(self)

    __eq__ = str.__eq__


class Source:
    """Names without tensors."""

    def __init__(self, names: list[str]) -> None:
        self.tensors: Mapping[str, TensorInfo] = {name: TensorInfo("float32", (1,)) for name in names}

    def read(self, name: str) -> Any:
        raise NotImplementedError

    def read_rows(self, name: str, start: int, stop: int) -> Any:
        raise NotImplementedError

    def close(self) -> None: ...


def test_the_work_grows_with_the_number_of_tensors() -> None:
    def num_hashes(count: int) -> int:
        source = Source([Counted(f"model.layers.{n}.w") for n in range(count)])
        Counted.num_hashes = 0
        model_only(source)
        return Counted.num_hashes

    assert num_hashes(2000) < 2.5 * num_hashes(1000)


@pytest.mark.parametrize("change", ["auto_map", "repository", "nested", "adapter", "module", "none"])
def test_only_our_own_bidirectional_module_runs(change: str, model: Path) -> None:
    """transformers runs all that `auto_map` names, whatever modeling_bidirectional.py is."""
    bidirectional.make_bidirectional(model)
    path = model / "config.json"
    config = json.loads(path.read_text())
    if change == "auto_map":
        config["auto_map"]["AutoConfig"] = "other.C"
    elif change == "repository":
        config["auto_map"]["AutoModel"] = f"someone/else--{config['auto_map']['AutoModel']}"
    elif change == "nested":
        config["text_config"] = {"auto_map": {"AutoConfig": "other.C"}}
    elif change == "adapter":
        (model / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": os.fspath(model.parent)})
        )
    elif change == "module":
        module = model / f"{bidirectional.MODULE}.py"
        module.write_text(module.read_text() + "\n")
    path.write_text(json.dumps(config))
    assert bidirectional.is_ours(model, "llama") is (change == "none")
