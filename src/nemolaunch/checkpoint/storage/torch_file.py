"""Read files of `torch.save` lazily: each is a zip of one pickle and one uncompressed entry per storage.

The `.distcp` files of a DCP checkpoint hold many such zips in a row, hence `offset` and `length`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.tensors import ITEM_BYTES, TensorInfo, buffer_of, empty
from nemolaunch.errors import NemolaunchError
from nemolaunch.trust import pickles

if TYPE_CHECKING:
    import torch

STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "BFloat16Storage": "bfloat16",
    "HalfStorage": "float16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
MOST_EXPANDED_BYTES = 1 << 30
LOCAL_HEADER_BYTES = 30  # followed by the name and an extra field, whose lengths are at 26 and 28


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: its storage, and its offset and strides in that storage, counted in elements."""

    info: TensorInfo
    storage: str
    storage_offset: int
    stride: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements follow each other without gaps."""
        expected = 1
        for size, stride in zip(reversed(self.info.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    @property
    def span(self) -> int:
        """The number of storage elements from the tensor's first element to its last."""
        if not self.info.numel:
            return 0
        steps = zip(self.info.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in steps)


class TorchFile:
    """A file of `torch.save`, or such a file embedded in a larger one.

    Attributes:
        content: the saved object, with a `LazyTensor` in place of each tensor.
    """

    def __init__(self, path: Path, files: OpenFiles, offset: int = 0, length: int | None = None) -> None:
        self.path, self._files, self._offset = path, files, offset
        self._length = path.stat().st_size - offset if length is None else length
        try:
            with zipfile.ZipFile(_Slice(self)) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
                pickle_name = next(name for name in self._entries if name.endswith("/data.pkl"))
                self._prefix = pickle_name.removesuffix("data.pkl")
            content = self._bytes(pickle_name)
            self.content = pickles.load(io.BytesIO(content), KNOWN, _storage)
            for _, tensor in lazy_tensors(self.content):
                self._check(tensor)
        except NemolaunchError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise NemolaunchError(f"{path} is not a torch.save file, or it is damaged: {error!r}") from error

    def read(self, tensor: LazyTensor) -> torch.Tensor:
        """Return a tensor, contiguous."""
        import torch

        start = self._start(tensor.storage) + tensor.storage_offset * ITEM_BYTES[tensor.info.dtype]
        if tensor.is_contiguous:
            result = empty(tensor.info)
            self.read_bytes(start, result)
            return result
        stored = empty(TensorInfo(tensor.info.dtype, (tensor.span,)))
        self.read_bytes(start, stored)
        return torch.as_strided(stored, tensor.info.shape, tensor.stride).contiguous()

    def data_offset(self, tensor: LazyTensor) -> int:
        """Return the offset of a tensor's first element in the outer file."""
        start = self._start(tensor.storage) + tensor.storage_offset * ITEM_BYTES[tensor.info.dtype]
        return self._offset + start

    def _check(self, tensor: LazyTensor) -> None:
        """Raise `ValueError` for a tensor that is not within its storage."""
        numbers = (tensor.storage_offset, *tensor.info.shape, *tensor.stride)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"a tensor has the sizes {tensor.info.shape} and strides {tensor.stride}")
        end = (tensor.storage_offset + tensor.span) * ITEM_BYTES[tensor.info.dtype]
        stored = self._entries[self.entry_name(tensor)].file_size
        if (tensor.info.numel and end > stored) or len(tensor.info.shape) != len(tensor.stride):
            raise ValueError(f"a tensor ends at byte {end:,} of a storage of {stored:,}")
        if tensor.info.nbytes > max(stored, MOST_EXPANDED_BYTES):  # one element may stand for many
            raise ValueError(f"a tensor of {tensor.info.nbytes:,} bytes has a storage of {stored:,}")

    def entry_name(self, tensor: LazyTensor) -> str:
        """Return the name of the zip entry that holds a tensor's storage."""
        return f"{self._prefix}data/{tensor.storage}"

    def read_bytes(self, start: int, into: torch.Tensor) -> None:
        """Fill a contiguous tensor with the bytes of this file from `start`."""
        if into.numel():
            self._files.read_into(self.path, self._offset + start, buffer_of(into))

    def _bytes(self, name: str) -> bytes:
        """Return an entry's content, without verifying its checksum, which torch can omit."""
        return self._files.read(
            self.path, self._offset + self._content_offset(name), self._entries[name].file_size
        )

    def _start(self, storage: str) -> int:
        return self._content_offset(f"{self._prefix}data/{storage}")

    def _content_offset(self, name: str) -> int:
        """Return the offset of an entry's content in this file."""
        entry = self._entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise NemolaunchError(f"{self.path} is compressed, so torch.save did not write it")
        header = self._files.read(self.path, self._offset + entry.header_offset, LOCAL_HEADER_BYTES)
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return entry.header_offset + LOCAL_HEADER_BYTES + names


def lazy_tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
    """Yield the tensors in nested dicts and lists, with their keys joined by dots."""
    if isinstance(content, LazyTensor):
        yield prefix, content
        return
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)  # type: ignore[assignment]
    else:
        return
    for key, value in items:
        yield from lazy_tensors(value, f"{prefix}.{key}" if prefix else str(key))


def _storage(identity: Any) -> _Storage:
    _, kind, key = identity[:3]
    return _Storage(STORAGE_DTYPES.get(kind.__name__, "uint8"), str(key))


def _rebuild_tensor(storage: _Storage, offset: int, size: Any, stride: Any, *rest: Any) -> LazyTensor:
    return LazyTensor(TensorInfo(storage.dtype, tuple(size)), storage.key, offset, tuple(stride))


def _rebuild_tensor_v3(
    storage: _Storage, offset: int, size: Any, stride: Any, gradient: bool, hooks: Any, dtype: Any, *rest: Any
) -> LazyTensor:
    return LazyTensor(TensorInfo(str(dtype), tuple(size)), storage.key, offset, tuple(stride))


def _rebuild_parameter(data: LazyTensor, *rest: Any) -> LazyTensor:
    return data


KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", dtype): dtype for dtype in ITEM_BYTES},
}


class _Slice(io.RawIOBase):
    """The section of the outer file that is the zip, as a file object."""

    def __init__(self, file: TorchFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file._length}[whence]
        if base + offset < 0:
            raise OSError("negative position")  # from which zipfile sees that the file is too short
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._file._length - self._position), 0)
        if count:
            offset = self._file._offset + self._position
            self._file._files.read_into(self._file.path, offset, memoryview(buffer)[:count])
        self._position += count
        return count
