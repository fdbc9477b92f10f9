"""Readers and writers of tensors, against the libraries that define the formats."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.quantised import Dequantised
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSink, SafetensorsSource
from nemolaunch.checkpoint.storage.tensors import TensorInfo, info_of
from nemolaunch.checkpoint.storage.torch_file import TorchFile, lazy_tensors
from nemolaunch.errors import NemolaunchError
from nemolaunch.trust import pickles


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(6, 5),
        "b": torch.randn(3, 2, 4).to(torch.bfloat16),
        "eight": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "one": torch.tensor(7, dtype=torch.int64),
        "none": torch.empty(0, 3),
    }


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b)]
    return info_of(a) == info_of(b) and torch.equal(*bits)


def test_safetensors_writes_what_safetensors_reads(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """In shards, written in any order."""
    from safetensors import safe_open

    sink = SafetensorsSink(tmp_path, {n: info_of(t) for n, t in tensors.items()}, max_shard_bytes=100)
    for name in reversed(tensors):
        sink.write(name, tensors[name])
    sink.finish()
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert len(set(index["weight_map"].values())) > 1
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert same(opened.get_tensor(name), tensors[name])
    source = SafetensorsSource(sorted(tmp_path.glob("*.safetensors")))
    assert {name: info_of(t) for name, t in tensors.items()} == source.tensors
    assert all(same(source.read(name), tensor) for name, tensor in tensors.items())
    assert same(source.read_rows("a.weight", 2, 5), tensors["a.weight"][2:5])


def test_one_small_file_is_not_sharded(tmp_path: Path) -> None:
    sink = SafetensorsSink(tmp_path, {"w": TensorInfo("float32", (2,))})
    with pytest.raises(ValueError, match="never written"):
        sink.finish()
    sink.write("w", torch.ones(2))
    sink.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_dcp_reads_what_torch_wrote(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[str, dict[str, Any]] = {
        "model": {n: t for n, t in tensors.items() if n != "none"},
        "step": {"count": 3},
    }
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    source = DcpSource(tmp_path)
    for name, tensor in state["model"].items():
        assert same(source.read(f"model.{name}"), tensor)
    assert same(source.read_region("model.a.weight", (2, 1), (3, 2)), tensors["a.weight"][2:5, 1:3])
    assert same(source.read_rows("model.b", 1, 3), tensors["b"][1:3])


def test_torch_reads_what_dcp_wrote(tmp_path: Path) -> None:
    """A tensor in four rectangles, an object, and a view of a larger tensor."""
    whole = torch.randn(6, 8)
    view = torch.randn(100, 10)[3:5]
    sink = DcpSink(tmp_path, {"whole": info_of(whole), "view": info_of(view)})
    for row, column in ((0, 0), (0, 4), (4, 0), (4, 4)):
        part = whole[row : row + 4, column : column + 4]
        sink.write_region("whole", (row, column), part)
    sink.write("view", view)
    sink.write_objects(["extra"], [None])
    sink.finish()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.distcp")) < 12_000
    loaded = {"whole": torch.empty(6, 8), "view": torch.empty(2, 10)}
    dcp.load(loaded, checkpoint_id=tmp_path, no_dist=True)
    assert same(loaded["whole"], whole)
    assert same(loaded["view"], view)
    source = DcpSource(tmp_path)
    for begin, shape in (((0, 0), (6, 8)), ((2, 3), (3, 4)), ((4, 0), (2, 8)), ((5, 7), (1, 1))):
        expected = whole[begin[0] : begin[0] + shape[0], begin[1] : begin[1] + shape[1]]
        assert same(source.read_region("whole", begin, shape), expected)
    assert source.read_object("extra") == [None]


def test_a_gap_a_missing_file_and_a_truncated_file(tmp_path: Path) -> None:
    sink = DcpSink(tmp_path, {"w": TensorInfo("float32", (4, 2))})
    sink.write_region("w", (0, 0), torch.ones(3, 2))
    sink.finish()
    with pytest.raises(NemolaunchError, match="lacks a part of w: it has 6 of 8 elements"):
        DcpSource(tmp_path).read("w")
    file = tmp_path / "__0_0.distcp"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(NemolaunchError, match=r"__0_0\.distcp is truncated: it has [\d,]+ bytes, but needs"):
        DcpSource(tmp_path)
    file.unlink()
    with pytest.raises(NemolaunchError, match="1 of its 1 files are missing"):
        DcpSource(tmp_path)
    (tmp_path / ".metadata").write_bytes(b"\x80\x04")
    with pytest.raises(NemolaunchError, match="is damaged"):
        DcpSource(tmp_path)


def test_torch_files(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Parameters, shared storages, transposed and nested ones."""
    base = torch.randn(4, 6)
    content = {
        "plain": tensors,
        "parameter": torch.nn.Parameter(base),
        "transposed": base.t(),
        "rows": base[1:3],
        "list": [torch.arange(3)],
        "note": "text",
    }
    torch.save(content, tmp_path / "model.pt")
    file = TorchFile(tmp_path / "model.pt", OpenFiles())
    found = dict(lazy_tensors(file.content))
    expected: dict[str, Any] = {
        **{f"plain.{name}": tensor for name, tensor in tensors.items()},
        "parameter": base,
        "transposed": base.t(),
        "rows": base[1:3],
        "list.0": torch.arange(3),
    }
    assert found.keys() == expected.keys()
    assert all(same(file.read(lazy), expected[name]) for name, lazy in found.items())
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(NemolaunchError, match=r"is not a torch\.save file"):
        TorchFile(tmp_path / "text.pt", OpenFiles())


class Trap:
    """An object that creates a file when it is unpickled the usual way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/nemolaunch-pickle-trap"),))


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "trap").write_bytes(pickle.dumps({"trap": Trap(), "numbers": [1, 2]}))
    with open(tmp_path / "trap", "rb") as file:
        content = pickles.load(file)
    assert content["numbers"] == [1, 2]
    assert isinstance(content["trap"], pickles.Opaque)
    assert not Path("/tmp/nemolaunch-pickle-trap").exists()


class Memory:
    """Tensors in memory, as a source."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self.tensors = {name: info_of(tensor) for name, tensor in tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self._tensors[name][start:stop]

    def close(self) -> None: ...


def test_float8_in_blocks() -> None:
    """A weight larger than one block, with a scale each; the sizes are not multiples of 128."""
    torch.manual_seed(0)
    weight = torch.randn(200, 300).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 3)
    source = Dequantised(Memory({"w.weight": weight, "w.weight_scale_inv": scales, "norm": torch.ones(2)}))
    assert source.tensors == {
        "w.weight": TensorInfo("bfloat16", (200, 300)),
        "norm": TensorInfo("float32", (2,)),
    }
    got = source.read("w.weight")
    for row, column in ((0, 0), (127, 128), (128, 127), (199, 299)):
        expected = weight[row, column].float() * scales[row // 128, column // 128]
        assert got[row, column] == expected.to(torch.bfloat16)


def test_mxfp4_as_transformers_reads_it() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    blocks = torch.randint(0, 256, (3, 8, 2, 16), dtype=torch.uint8)
    scales = torch.randint(118, 132, (3, 8, 2), dtype=torch.uint8)
    source = Dequantised(Memory({"gate_up_proj_blocks": blocks, "gate_up_proj_scales": scales}))
    assert source.tensors == {"gate_up_proj": TensorInfo("bfloat16", (3, 64, 8))}
    assert same(source.read("gate_up_proj"), convert_moe_packed_tensors(blocks, scales))
