"""Read a torch distributed checkpoint (DCP): `.metadata` and `*.distcp`, saved by any number of processes.

Each tensor is stored as one or more rectangular chunks, each of which is a small torch.save file inside a
`.distcp` file. Any region of a tensor can be read, however it was split; no process group is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.tensors import ITEM_BYTES, TensorInfo, buffer_of, empty
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile
from nemolaunch.errors import NemolaunchError
from nemolaunch.trust import pickles
from nemolaunch.trust.links import named_file

if TYPE_CHECKING:
    import torch

METADATA = ".metadata"
MOST_MISSING_BYTES = 1 << 30  # of a tensor, before memory is allocated for all of it
KNOWN = {("torch", dtype): dtype for dtype in ITEM_BYTES}


@dataclass(frozen=True)
class FileSpan:
    """A range of bytes in a file."""

    path: Path
    start: int
    length: int


Spans = dict[tuple[str, Any], FileSpan]  # by name and, for tensors, the offsets of a chunk


@dataclass(frozen=True)
class Chunk:
    """A rectangle of a tensor and the bytes that hold it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    span: FileSpan


def incomplete(folder: Path) -> str | None:
    """Return what a distributed checkpoint lacks, in words that follow its path, or None if it is complete.

    Compares the files with what `.metadata` says they hold. Reads no tensors and does not import torch.
    """
    try:
        _, spans = _read_metadata(folder)
    except NemolaunchError as error:
        return str(error)
    return _missing_bytes(spans)


class DcpSource:
    """The tensors of a DCP folder.

    Attributes:
        tensors: types and whole shapes, by name.
        objects: names of everything else that was saved, as pickles of torch.save.
    """

    def __init__(self, folder: Path) -> None:
        """Read `.metadata`. Raises `NemolaunchError` if it is unreadable, or a file is missing or truncated."""
        self.folder = folder
        self._files = OpenFiles()
        self.tensors: dict[str, TensorInfo] = {}
        self.objects: list[str] = []
        self._chunks: dict[str, list[Chunk]] = {}
        metadata, self._spans = _read_metadata(folder)
        try:
            if any(getattr(info, "transform_descriptors", None) for info in metadata.storage_data.values()):
                raise NemolaunchError(f"{folder} is compressed or encrypted, which nemolaunch cannot read")
            for name, entry in metadata.state_dict_metadata.items():
                self._add(name, entry)
        except NemolaunchError:
            raise
        except Exception as error:  # a damaged pickle can have anything in any place
            raise NemolaunchError(f"{folder / METADATA} is damaged: {error!r}") from error
        fault = _missing_bytes(self._spans)
        if fault:
            raise NemolaunchError(f"{folder} is incomplete: {fault}. Download or copy it again.")

    def _add(self, name: str, entry: Any) -> None:
        if not hasattr(entry, "chunks"):
            self.objects.append(name)
            return
        info = TensorInfo(str(entry.properties.state[0]), tuple(entry.size))
        chunks = [
            Chunk(tuple(c.offsets), tuple(c.sizes), self._spans[name, tuple(c.offsets)]) for c in entry.chunks
        ]
        stored = sum(TensorInfo(info.dtype, chunk.sizes).nbytes for chunk in chunks)
        numbers = (*info.shape, *(number for chunk in chunks for number in (*chunk.offsets, *chunk.sizes)))
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"{name} has the shape {info.shape}")
        if info.nbytes > max(stored, MOST_MISSING_BYTES) or any(
            TensorInfo(info.dtype, chunk.sizes).nbytes > chunk.span.length
            or any(o + n > whole for o, n, whole in zip(chunk.offsets, chunk.sizes, info.shape, strict=True))
            for chunk in chunks
        ):
            raise ValueError(f"the chunks of {name} are not those of {info}")
        self.tensors[name], self._chunks[name] = info, chunks

    @property
    def spans(self) -> Spans:
        """Where the bytes of every chunk and object are."""
        return self._spans

    def chunks(self, name: str) -> Sequence[Chunk]:
        """Return the rectangles in which a tensor is stored."""
        return self._chunks[name]

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor."""
        shape = self.tensors[name].shape
        return self.read_region(name, (0,) * len(shape), shape)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        shape = self.tensors[name].rows(start, stop).shape
        return self.read_region(name, (start, *(0 for _ in shape[1:])), shape)

    def read_region(self, name: str, offsets: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
        """Return the rectangle of `shape` that begins at `offsets`.

        Raises `NemolaunchError` if the chunks do not cover it, or a file is truncated.
        """
        result = empty(TensorInfo(self.tensors[name].dtype, tuple(shape)))
        filled = 0
        for chunk in self._chunks[name]:
            overlap = _overlap(offsets, shape, chunk.offsets, chunk.sizes)
            if overlap is None:
                continue
            begin, sizes = overlap
            into = result
            for axis, size in enumerate(sizes):
                into = into.narrow(axis, begin[axis] - offsets[axis], size)
            self._read_part(name, chunk, [b - o for b, o in zip(begin, chunk.offsets, strict=True)], into)
            filled += into.numel()
        if filled != result.numel():
            raise NemolaunchError(
                f"{self.folder} lacks a part of {name}: it has {filled:,} of {result.numel():,} elements"
            )
        return result

    def read_object(self, name: str) -> Any:
        """Return one of `objects`; instances of unknown classes are `pickles.Opaque`."""
        span = self._spans[name, None]
        return TorchFile(span.path, self._files, span.start, span.length).content

    def close(self) -> None:
        """Close all files."""
        self._files.close()

    def _read_part(self, name: str, chunk: Chunk, begin: Sequence[int], into: torch.Tensor) -> None:
        """Fill the view `into` with the part of a chunk that starts at `begin` within the chunk."""
        path = chunk.span.path
        file = TorchFile(path, self._files, chunk.span.start, chunk.span.length)
        stored = file.content
        if not isinstance(stored, LazyTensor) or stored.info.shape != chunk.sizes:
            raise NemolaunchError(f"{path}: {name} is not the tensor that .metadata describes")
        first = _contiguous_start(begin, into.shape, chunk.sizes) if stored.is_contiguous else None
        if first is not None and into.is_contiguous() and stored.info.dtype == self.tensors[name].dtype:
            if into.numel():
                offset = file.data_offset(stored) + first * ITEM_BYTES[stored.info.dtype]
                self._files.read_into(path, offset, buffer_of(into))
            return
        part = file.read(stored)
        for axis, size in enumerate(into.shape):
            part = part.narrow(axis, begin[axis], size)
        into.copy_(part)


def _read_metadata(folder: Path) -> tuple[Any, Spans]:
    """Return the content of `.metadata`, and where the bytes of everything it lists are."""
    path = folder / METADATA
    try:
        with open(path, "rb") as file:
            metadata = pickles.load(file, KNOWN)
        spans: Spans = {}
        files: dict[str, Path] = {}
        for index, info in (metadata.storage_data or {}).items():
            offset = getattr(index, "offset", None)
            key = (index.fqn, None if offset is None else tuple(offset))
            name = str(info.relative_path)
            if name not in files:
                files[name] = named_file(folder, name, path)
            if info.offset < 0 or info.length < 0:
                raise ValueError(f"{name} has {info.length} bytes at {info.offset}")
            spans[key] = FileSpan(files[name], info.offset, info.length)
    except NemolaunchError:
        raise
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise NemolaunchError(f"{path} is damaged: {error!r}") from error
    return metadata, spans


def _missing_bytes(spans: Spans) -> str | None:
    """Return which files are missing or truncated, in words; None if all are there."""
    ends: dict[Path, int] = {}
    for span in spans.values():
        ends[span.path] = max(ends.get(span.path, 0), span.start + span.length)
    missing = sorted(path.name for path in ends if not path.is_file())
    if missing:
        names = ", ".join(missing[:4]) + (", …" if len(missing) > 4 else "")
        return f"{len(missing)} of its {len(ends)} files are missing ({names})"
    for path, end in sorted(ends.items()):
        size = path.stat().st_size
        if size < end:
            return f"{path.name} is truncated: it has {size:,} bytes, but needs {end:,}"
    return None


def _overlap(
    offsets: Sequence[int], shape: Sequence[int], other_offsets: Sequence[int], other_shape: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """Return the first corner and the sizes of the intersection of two rectangles; None if it is empty."""
    begin, sizes = [], []
    for a, n, b, m in zip(offsets, shape, other_offsets, other_shape, strict=True):
        low, high = max(a, b), min(a + n, b + m)
        if low >= high:
            return None
        begin.append(low)
        sizes.append(high - low)
    return begin, sizes


def _contiguous_start(begin: Sequence[int], shape: Sequence[int], whole: Sequence[int]) -> int | None:
    """Return the index of a rectangle's first element in `whole`, or None if it is not contiguous there."""
    first, cut = 0, False
    for start, size, full in zip(begin, shape, whole, strict=True):
        if cut and size != full:
            return None
        first = first * full + start
        cut = cut or size != 1
    return first
