"""Write a file in `torch.save`'s format tensor by tensor, whatever its size.

torch lays out the file with space for every tensor (`torch.serialization.skip_data`); the tensors are then
written in place as they arrive.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.storage.file_parts import OpenFiles, write_all
from nemolaunch.checkpoint.storage.tensors import TensorInfo, buffer_of
from nemolaunch.checkpoint.storage.torch_file import TorchFile, lazy_tensors

if TYPE_CHECKING:
    import torch

# The zip format (APPNOTE.TXT): entries of the central directory, and the record that follows a file's data
CENTRAL, CENTRAL_BYTES, CENTRAL_CRC = b"PK\x01\x02", 46, 16
DESCRIPTOR = b"PK\x07\x08"


class TorchSink:
    """A dictionary of tensors being written as `torch.save` does."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        """Lay out the file. `path` must not exist."""
        self.path = path
        _lay_out(path, tensors)
        files = OpenFiles()
        file = TorchFile(path, files)
        self._places = {
            name: (file.data_offset(lazy), file.entry_name(lazy))
            for name, lazy in lazy_tensors(file.content)
            if lazy.info.numel
        }
        self._missing = {name for name, info in tensors.items() if info.numel}
        files.close()
        self._sums: dict[str, tuple[int, int]] = {}
        self._descriptor = os.open(path, os.O_RDWR)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor."""
        if not tensor.numel():
            return
        offset, entry = self._places[name]
        buffer = buffer_of(tensor.contiguous())
        write_all(self._descriptor, buffer, offset)
        self._sums[entry] = (zlib.crc32(buffer), offset + len(buffer))
        self._missing.remove(name)

    def finish(self) -> None:
        """Write the checksums and close the file. Every announced tensor must have been written."""
        if self._missing:
            raise ValueError(f"tensors were never written: {sorted(self._missing)[:5]}")
        for entry, place in _central_entries(self._descriptor):
            if entry in self._sums:
                crc, end = self._sums[entry]
                packed = struct.pack("<I", crc)
                os.pwrite(self._descriptor, packed, place + CENTRAL_CRC)
                if os.pread(self._descriptor, 4, end) == DESCRIPTOR:
                    os.pwrite(self._descriptor, packed, end + 4)
        self.close()

    def close(self) -> None:
        """Close the file, complete or not."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _lay_out(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.serialization import skip_data

    with FakeTensorMode():
        empties = {
            name: torch.empty(info.shape, dtype=getattr(torch, info.dtype)) for name, info in tensors.items()
        }
    with open(path, "xb") as file, skip_data(materialize_fake_tensors=True):
        torch.save(empties, file)


def _central_entries(descriptor: int) -> list[tuple[str, int]]:
    """Return the names in the zip's central directory, and the offset of each entry there."""
    import zipfile

    with os.fdopen(os.dup(descriptor), "rb") as file, zipfile.ZipFile(file) as archive:
        place = archive.start_dir
        names = archive.namelist()
    found = []
    for name in names:
        head = os.pread(descriptor, CENTRAL_BYTES, place)
        if head[:4] != CENTRAL:
            raise ValueError(f"there is no entry of the zip's central directory at byte {place}")
        found.append((name, place))
        place += CENTRAL_BYTES + sum(struct.unpack("<3H", head[28:34]))
    return found
