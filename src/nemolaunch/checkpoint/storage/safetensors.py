"""Safetensors files, read and written tensor by tensor.

Format: 8 bytes little-endian length N, N bytes of JSON, then the data; offsets in the JSON count from the
data's start and must fill it (https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.storage.file_parts import OpenFiles, write_all
from nemolaunch.checkpoint.storage.tensors import TensorInfo, buffer_of, empty
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    import torch

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_SHARD_BYTES = 5 * 10**9  # as transformers' save_pretrained
ALIGNMENT = 8
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Entry:
    """A tensor of a file, and the byte of the file at which it begins."""

    info: TensorInfo
    start: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file, by name. Raises `NemolaunchError` for a damaged or truncated file."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {
            name: Entry(
                TensorInfo(DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"])),
                8 + length + entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise NemolaunchError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    if 8 + length + end != size:
        raise NemolaunchError(
            f"{path} is truncated or damaged: {size:,} bytes, where its header says {8 + length + end:,}. "
            "Download or copy it again."
        )
    return tensors


class SafetensorsSource:
    """The tensors of one or more files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Reads the headers. Raises `NemolaunchError` for a damaged file."""
        self._files = OpenFiles()
        self._places: dict[str, tuple[Path, Entry]] = {}
        for path in paths:
            entries = sorted(read_header(path).items(), key=lambda item: item[1].start)
            self._places.update({name: (path, entry) for name, entry in entries})
        self.tensors = {name: entry.info for name, (_, entry) in self._places.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor."""
        path, entry = self._places[name]
        return self._read(path, entry.start, entry.info)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Some rows of a tensor."""
        path, entry = self._places[name]
        info = entry.info.rows(start, stop)
        return self._read(path, entry.start + info.nbytes // (stop - start) * start, info)

    def _read(self, path: Path, start: int, info: TensorInfo) -> torch.Tensor:
        tensor = empty(info)
        if tensor.numel():
            self._files.read_into(path, start, buffer_of(tensor))
        return tensor

    def close(self) -> None:
        self._files.close()


class SafetensorsSink:
    """Writes `model.safetensors`, or shards of it and their index, as transformers does."""

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorInfo],
        max_shard_bytes: int = MAX_SHARD_BYTES,
        one_file: str | None = None,
    ) -> None:
        """`folder` must exist; tensors are fastest written in the order of `tensors`.

        `one_file` is the name of the only file, instead of shards.
        """
        self.folder = folder
        shards = [list(tensors)] if one_file else _shards(tensors, max_shard_bytes)
        self._total = sum(info.nbytes for info in tensors.values())
        self._places: dict[str, tuple[int, int]] = {}
        self._shard_of: dict[str, str] = {}
        self._open: list[int] = []
        for number, names in enumerate(shards, start=1):
            count = len(shards)
            sharded = f"model-{number:05}-of-{count:05}.safetensors"
            file = one_file or ("model.safetensors" if count == 1 else sharded)
            self._begin(file, {name: tensors[name] for name in names})
        self._missing = set(tensors)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor."""
        descriptor, place = self._places[name]
        tensor = tensor.contiguous()
        if tensor.numel():
            write_all(descriptor, buffer_of(tensor), place)
        self._missing.remove(name)

    def finish(self) -> None:
        """Close the files and write the index; the tensors announced must all have been written."""
        if self._missing:
            raise ValueError(f"tensors were never written: {sorted(self._missing)[:5]}")
        self.close()
        if len(set(self._shard_of.values())) > 1:
            index = {
                "metadata": {"total_size": self._total},
                "weight_map": dict(sorted(self._shard_of.items())),
            }
            (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the files of a checkpoint that is given up, or done."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def _begin(self, file: str, tensors: Mapping[str, TensorInfo]) -> None:
        header, offsets, offset = {}, {}, 0
        for name, info in tensors.items():
            span = [offset, offset + info.nbytes]
            header[name] = {
                "dtype": NAMES[info.dtype],
                "shape": list(info.shape),
                "data_offsets": span,
            }
            offsets[name], offset = span
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        descriptor = os.open(self.folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._open.append(descriptor)
        start = 8 + len(text)
        write_all(descriptor, memoryview(struct.pack("<Q", len(text)) + text), 0)
        os.truncate(descriptor, start + offset)
        for name in tensors:
            self._places[name] = (descriptor, start + offsets[name])
            self._shard_of[name] = file


def _shards(tensors: Mapping[str, TensorInfo], max_bytes: int) -> list[list[str]]:
    """Names by shard, in order; a tensor larger than a shard has one of its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if shards[-1] and size + info.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.nbytes
    return shards
