"""Read a torch distributed checkpoint (DCP): `.metadata` and `*.distcp`, saved by any number of processes.

Each tensor lies in one or more rectangular chunks, each of which is a small torch.save file inside a
`.distcp` file. Any region of a tensor can be read, whatever the chunks; no process group is needed.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage import pickles
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.tensors import ITEM_BYTES, TensorInfo, buffer_of, empty
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    import torch

METADATA = ".metadata"
KNOWN = {("torch", dtype): dtype for dtype in ITEM_BYTES}


@dataclass(frozen=True)
class Chunk:
    """A rectangle of a tensor, and the piece of a file that holds it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    path: Path
    start: int
    length: int


class DcpSource:
    """The tensors of a DCP folder.

    Attributes:
        tensors: by name, whole.
        objects: names of what else was saved, as pickles of torch.save.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `NemolaunchError` if there is no readable `.metadata`, or a file it names is missing or cut off."""
        self.folder = folder
        self._files = OpenFiles()
        try:
            with open(folder / METADATA, "rb") as file:
                metadata = pickles.load(file, KNOWN)
            self._places = _places(folder, metadata.storage_data)
            self.tensors: dict[str, TensorInfo] = {}
            self.objects: list[str] = []
            self._chunks: dict[str, list[Chunk]] = {}
            for name, entry in metadata.state_dict_metadata.items():
                self._add(name, entry)
        except OSError as error:
            raise NemolaunchError(f"cannot read {folder / METADATA}: {error.strerror}") from error
        except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError) as error:
            raise NemolaunchError(f"{folder / METADATA} is damaged: {error!r}") from error
        _check_files(chunk for chunks in self._chunks.values() for chunk in chunks)

    def chunks(self, name: str) -> Sequence[Chunk]:
        """The rectangles in which a tensor is stored."""
        return self._chunks[name]

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor."""
        shape = self.tensors[name].shape
        return self.read_region(name, (0,) * len(shape), shape)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Some rows of a tensor."""
        shape = self.tensors[name].rows(start, stop).shape
        return self.read_region(name, (start, *(0 for _ in shape[1:])), shape)

    def read_region(self, name: str, offsets: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
        """The rectangle of `shape` that begins at `offsets`.

        Raises `NemolaunchError` if the chunks do not cover it, or a file is cut off.
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
                f"{self.folder} lacks a part of {name}: {filled:,} of {result.numel():,} elements are there"
            )
        return result

    def read_object(self, name: str) -> Any:
        """What was saved under a name of `objects`; unknown classes are `pickles.Opaque`."""
        path, start, length = self._places[name, None]
        return TorchFile(path, self._files, start, length).content

    def close(self) -> None:
        self._files.close()

    def _add(self, name: str, entry: Any) -> None:
        if not hasattr(entry, "chunks"):
            self.objects.append(name)
            return
        self.tensors[name] = TensorInfo(str(entry.properties.state[0]), tuple(entry.size))
        self._chunks[name] = [
            Chunk(tuple(chunk.offsets), tuple(chunk.sizes), *self._places[name, tuple(chunk.offsets)])
            for chunk in entry.chunks
        ]

    def _read_part(self, name: str, chunk: Chunk, begin: Sequence[int], into: torch.Tensor) -> None:
        """Fill `into`, a view, with the part of a chunk that starts at `begin` in it."""
        file = TorchFile(chunk.path, self._files, chunk.start, chunk.length)
        stored = file.content
        if not isinstance(stored, LazyTensor) or stored.info.shape != chunk.sizes:
            raise NemolaunchError(f"{chunk.path}: {name} is not the tensor that .metadata describes")
        run = _one_run(begin, into.shape, chunk.sizes) if stored.is_contiguous else None
        if run is not None and into.is_contiguous() and stored.info.dtype == self.tensors[name].dtype:
            if into.numel():
                place = file.data_offset(stored) + run * ITEM_BYTES[stored.info.dtype]
                self._files.read_into(chunk.path, place, buffer_of(into))
            return
        part = file.read(stored)
        for axis, size in enumerate(into.shape):
            part = part.narrow(axis, begin[axis], size)
        into.copy_(part)


def _places(folder: Path, storage: Mapping[Any, Any]) -> dict[tuple[str, Any], tuple[Path, int, int]]:
    """File, first byte and length of every piece, by name and (for tensors) offsets."""
    places = {}
    for index, info in storage.items():
        offset = getattr(index, "offset", None)
        key = (index.fqn, None if offset is None else tuple(offset))
        if getattr(info, "transform_descriptors", None):
            raise NemolaunchError(f"{folder} is compressed or encrypted, which cannot be read here")
        places[key] = (folder / info.relative_path, info.offset, info.length)
    return places


def _check_files(chunks: Iterable[Chunk]) -> None:
    """Every file is there, as long as its last chunk needs."""
    ends: dict[Path, int] = {}
    for chunk in chunks:
        ends[chunk.path] = max(ends.get(chunk.path, 0), chunk.start + chunk.length)
    missing = sorted(path for path in ends if not path.is_file())
    if missing:
        names = ", ".join(path.name for path in missing[:4]) + (", …" if len(missing) > 4 else "")
        raise NemolaunchError(
            f"{missing[0].parent} is incomplete: {len(missing)} of its {len(ends)} files are missing ({names})"
        )
    for path, end in sorted(ends.items()):
        size = path.stat().st_size
        if size < end:
            raise NemolaunchError(
                f"{path} is cut off: {size:,} bytes are there, its tensors end at {end:,}. Download or copy it again."
            )


def _overlap(
    offsets: Sequence[int], shape: Sequence[int], other_offsets: Sequence[int], other_shape: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """Where two rectangles meet: first corner and sizes; None if they do not."""
    begin, sizes = [], []
    for a, n, b, m in zip(offsets, shape, other_offsets, other_shape, strict=True):
        low, high = max(a, b), min(a + n, b + m)
        if low >= high:
            return None
        begin.append(low)
        sizes.append(high - low)
    return begin, sizes


def _one_run(begin: Sequence[int], shape: Sequence[int], whole: Sequence[int]) -> int | None:
    """The first element of a rectangle within a contiguous `whole`, if it is one run of elements there."""
    run, cut = 0, False
    for start, size, full in zip(begin, shape, whole, strict=True):
        if cut and size != full:
            return None
        run = run * full + start
        cut = cut or size != 1
    return run
