"""Write a torch distributed checkpoint (DCP) piece by piece, from one process without a process group."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage.dcp import METADATA
from nemolaunch.checkpoint.storage.tensors import TensorInfo

if TYPE_CHECKING:
    import torch

MAX_FILE_BYTES = 5 * 10**9  # the size of Hugging Face's shards, which file systems and copies handle well


class DcpSink:
    """A DCP folder being written: each tensor, or rectangle of one, is a chunk; `finish` writes `.metadata`."""

    def __init__(self, folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
        """Open the first file. `tensors` has the whole shapes; `folder` must exist."""
        self.folder, self._tensors = folder, tensors
        self._chunks: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        self._objects: list[str] = []
        self._places: list[tuple[str, tuple[int, ...] | None, str, int, int]] = []
        self._number = 0
        self._file = open(self.folder / self._file_name, "wb")  # noqa: SIM115

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a whole tensor."""
        self.write_region(name, (0,) * tensor.dim(), tensor)

    def write_region(self, name: str, offsets: Sequence[int], tensor: torch.Tensor) -> None:
        """Write the rectangle of a tensor that begins at `offsets`."""
        import torch

        tensor = tensor.detach().contiguous()
        if tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()  # torch.save writes the whole storage of a view
        self._chunks.setdefault(name, []).append((tuple(offsets), tuple(tensor.shape)))
        with _without_checksums():
            self._append(name, tuple(offsets), lambda file: torch.save(tensor, file))

    def write_objects(self, names: Iterable[str], value: Any) -> None:
        """Write an object that is not a tensor, once under each name."""
        import torch

        content = io.BytesIO()
        torch.save(value, content)
        for name in names:
            self._objects.append(name)
            self._append(name, None, lambda file: file.write(content.getbuffer()))

    def finish(self) -> None:
        """Close the files and write `.metadata`. Every announced tensor must have been written."""
        missing = self._tensors.keys() - self._chunks.keys()
        if missing:
            raise ValueError(f"tensors were never written: {sorted(missing)[:5]}")
        self._file.close()
        with open(self.folder / METADATA, "wb") as file:
            pickle.dump(self._metadata(), file)

    def close(self) -> None:
        """Close the open file of a checkpoint that is abandoned."""
        self._file.close()

    @property
    def _file_name(self) -> str:
        return f"__0_{self._number}.distcp"

    def _append(self, name: str, offsets: tuple[int, ...] | None, write: Callable[[IO[bytes]], Any]) -> None:
        if self._file.tell() > MAX_FILE_BYTES:
            self._file.close()
            self._number += 1
            self._file = open(self.folder / self._file_name, "wb")  # noqa: SIM115
        start = self._file.tell()
        write(self._file)
        self._places.append((name, offsets, self._file_name, start, self._file.tell() - start))

    def _metadata(self) -> Any:
        import torch
        from torch.distributed.checkpoint.filesystem import _StorageInfo
        from torch.distributed.checkpoint.metadata import (
            BytesStorageMetadata,
            ChunkStorageMetadata,
            Metadata,
            MetadataIndex,
            StorageMeta,
            TensorProperties,
            TensorStorageMetadata,
        )

        entries: dict[str, Any] = {name: BytesStorageMetadata() for name in self._objects}
        for name, chunks in self._chunks.items():
            info = self._tensors[name]
            entries[name] = TensorStorageMetadata(
                TensorProperties(dtype=getattr(torch, info.dtype)),
                torch.Size(info.shape),
                [ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks],
            )
        storage = {
            MetadataIndex(name, offsets): _StorageInfo(file, start, length)
            for name, offsets, file, start, length in self._places
        }
        return Metadata(
            entries,
            storage_data=storage,
            storage_meta=StorageMeta(checkpoint_id=os.fspath(self.folder.name), save_id=str(uuid.uuid4())),
        )


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    """Turn off torch.save's checksums, which take three quarters of its time and which torch.load ignores."""
    from torch.serialization import get_crc32_options, set_crc32_options

    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
