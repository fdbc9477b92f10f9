"""Safetensors files: read with their own library, and written tensor by tensor.

Format: an 8-byte little-endian length N, N bytes of JSON, then the data. Offsets in the JSON count from the
start of the data and must cover it (https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage.file_parts import write_all
from nemolaunch.checkpoint.storage.tensors import TensorInfo, buffer_of
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
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_SHARD_BYTES = 5 * 10**9  # as transformers' save_pretrained
MAX_MAPPED_BYTES = 32 * 2**20
ALIGNMENT = 8
INDEX = "model.safetensors.index.json"


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a file by name, in the order of their data.

    Raises `NemolaunchError` for a damaged or truncated file, and for a type of numbers that torch does not have.
    """
    file = _open(path, "numpy")  # so that torch is not imported for a header
    _check_repeated(path)
    parts = {name: file.get_slice(name) for name in file.offset_keys()}
    for name, part in parts.items():
        if part.get_dtype() not in DTYPES:
            raise NemolaunchError(f"{path}: {name} is quantised to {part.get_dtype()}, which cannot be read")
    return {
        name: TensorInfo(DTYPES[part.get_dtype()], tuple(part.get_shape())) for name, part in parts.items()
    }


def shared_names(path: Path) -> dict[str, str]:
    """Return tensors that a file has under another name: safetensors' `save_model` stores shared memory once."""
    file = _open(path, "numpy")
    stored = set(file.keys())
    return {
        name: same for name, same in (file.metadata() or {}).items() if same in stored and name not in stored
    }


class SafetensorsSource:
    """The tensors of one or more files.

    The library maps files into memory, where each page that was read counts as memory of this process until the
    file is unmapped. So only one file is open at a time, and it is reopened after `MAX_MAPPED_BYTES`.

    Attributes:
        repeated: tensors that are in more than one file, with two of the files; the last one is read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the headers. Raises `NemolaunchError` for a damaged file."""
        self.tensors: dict[str, TensorInfo] = {}
        self.repeated: list[tuple[str, Path, Path]] = []
        self._paths: dict[str, Path] = {}
        for path in paths:
            header = read_header(path)
            self.repeated += [(name, self._paths[name], path) for name in header if name in self._paths]
            self.tensors.update(header)
            self._paths.update(dict.fromkeys(header, path))
        self._open: tuple[Path, Any] | None = None
        self._mapped_bytes = 0

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        return self._read(name, lambda file: file.get_tensor(name))

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._read(name, lambda file: file.get_slice(name)[start:stop])

    def close(self) -> None:
        """Close the open file; its mapping goes with the last tensor that was read from it."""
        self._open = None

    def _read(self, name: str, read: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        import torch

        path, size = self._paths[name], self.tensors[name].nbytes
        if self._open is None or self._open[0] != path or self._mapped_bytes + size > MAX_MAPPED_BYTES:
            self._open, self._mapped_bytes = (path, _open(path, "pt")), 0
        tensor = read(self._open[1])
        self._mapped_bytes += size
        # Touch every page: the file is read now, in the caller's thread, and not when the tensor is first used
        tensor.reshape(-1).view(torch.uint8)[:: mmap.PAGESIZE].sum()
        return tensor


def _open(path: Path, framework: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework)
    except SafetensorError as error:
        raise NemolaunchError(_damage(path, error)) from error
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror or error}") from error


def _check_repeated(path: Path) -> None:
    """Raise `NemolaunchError` if the header has a name twice: the library would take the last one."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise NemolaunchError(f"{path} is damaged: its header has {name!r} twice")
        return found

    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        json.loads(file.read(length), object_pairs_hook=once)  # valid, or the library had refused it


def _damage(path: Path, error: Exception) -> str:
    """Describe a damaged file. The library does not say how long a truncated one should be."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        expected = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error):
        return f"{path} is not a safetensors file, or it is damaged: {error}"
    if size == expected:
        return f"{path} is damaged: {error}"
    return (
        f"{path} is truncated or damaged: {size:,} bytes, but its header says {expected:,}. "
        "Download or copy it again."
    )


class SafetensorsSink:
    """A `model.safetensors`, or its shards and their index, being written as transformers does."""

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorInfo],
        max_shard_bytes: int = MAX_SHARD_BYTES,
        one_file: str | None = None,
    ) -> None:
        """Create the files. `folder` must exist; writing is fastest in the order of `tensors`.

        `one_file` is the name of a single file to write instead of shards.
        """
        self.folder = folder
        shards = [list(tensors)] if one_file else _shards(tensors, max_shard_bytes)
        self._total = sum(info.nbytes for info in tensors.values())
        self._places: dict[str, tuple[int, int]] = {}
        self._shard_of: dict[str, str] = {}
        self._descriptors: list[int] = []
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
        """Close the files and write the index. Every announced tensor must have been written."""
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
        """Close the files, complete or not."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

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
        self._descriptors.append(descriptor)
        start = 8 + len(text)
        write_all(descriptor, memoryview(struct.pack("<Q", len(text)) + text), 0)
        os.truncate(descriptor, start + offset)
        for name in tensors:
            self._places[name] = (descriptor, start + offsets[name])
            self._shard_of[name] = file


def _shards(tensors: Mapping[str, TensorInfo], max_bytes: int) -> list[list[str]]:
    """Return the names in each shard, in order; a tensor larger than a shard gets its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if shards[-1] and size + info.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.nbytes
    return shards
