"""Read and write parts of large files, keeping only a few of them open."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from nemolaunch.errors import NemolaunchError

MAX_OPEN = 64  # a checkpoint of a thousand processes has thousands of files


class OpenFiles:
    """Files read at given offsets. Each is opened when first read; the least recently used one is closed."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read_into(self, path: Path, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`. Raises `NemolaunchError` if the file is too short."""
        try:
            descriptor = self._descriptor(path)
            done = 0
            while done < len(buffer):  # the kernel reads at most 2 GiB at a time
                count = os.preadv(descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise NemolaunchError(
                        f"{path} is truncated: it should have {len(buffer):,} bytes at offset {offset:,}, "
                        f"but has {done:,}. Download or copy it again."
                    )
                done += count
        except OSError as error:
            raise NemolaunchError(f"cannot read {path}: {error.strerror or error}") from error

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`. Raises `NemolaunchError` if the file is too short."""
        content = bytearray(length)
        self.read_into(path, offset, memoryview(content))
        return bytes(content)

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            if len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[path] = os.open(path, os.O_RDONLY)
        self._open.move_to_end(path)
        return self._open[path]


def write_all(descriptor: int, content: memoryview, offset: int) -> None:
    """Write all of `content` at `offset`."""
    done = 0
    while done < len(content):  # the kernel writes at most 2 GiB at a time
        done += os.pwrite(descriptor, content[done:], offset + done)
