"""XXH3-128 of the input files, as `xxh128sum` prints it, in a background thread.

A cryptographic hash would take a tenth of the tokenising time. The thread follows the workers, so that what
it reads is still in memory.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from nemolaunch.system import remote
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json
from nemolaunch.tokenization.sources import InputFile

BUFFER_BYTES = 1 << 18
# Hashes of larger files are kept for a resumed run.
KEEP_FROM_BYTES = 1 << 28


def hash_of(path: str) -> str:
    """Return the hash of a file. Raises OSError if it cannot be read."""
    import xxhash

    digest, buffer = xxhash.xxh3_128(), bytearray(BUFFER_BYTES)
    with _unbuffered(path) as file:
        while size := file.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
    return str(digest.hexdigest())


def hash_of_bytes(data: bytes) -> str:
    """Return the hash of the content of a file."""
    import xxhash

    return str(xxhash.xxh3_128_hexdigest(data))


def _unbuffered(path: str) -> Any:
    """Open a file or an object for reading."""
    return remote.opened(path) if remote.is_url(path) else open(path, "rb", buffering=0)


class Hasher:
    """Thread that hashes each source up to the position of the work, unless its hash is known when it gets there."""

    def __init__(self, sources: list[InputFile], saved: Path) -> None:
        self.sources = sources
        self.saved = saved
        self.hashes: dict[str, str] = read_json(saved) if saved.exists() else {}
        self.error: OSError | None = None
        self.at = (0, 0)
        self.moved = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def reached(self, source: int, byte: int) -> None:
        """Report that the work has reached this byte of this source, and finished all sources before it."""
        with self.moved:
            self.at = max(self.at, (source, byte))
            self.moved.notify()

    def result(self) -> dict[str, str]:
        """Wait for all hashes and return them by path. Raises OSError if a file could not be read."""
        self.reached(len(self.sources), 0)
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.hashes

    def _run(self) -> None:
        try:
            for place, source in enumerate(self.sources):
                self._wait_for(place, 0)
                if source.path not in self.hashes:
                    self.hashes[source.path] = self._hash(place, source)
                    if source.size > KEEP_FROM_BYTES:
                        write_json(self.saved, dict(self.hashes), durable=False)
        except OSError as error:
            self.error = error

    def _hash(self, place: int, source: InputFile) -> str:
        import xxhash

        digest, buffer = xxhash.xxh3_128(), bytearray(BUFFER_BYTES)
        with _unbuffered(source.path) as file:
            done = 0
            while True:
                self._wait_for(place, done)
                size = file.readinto(buffer)
                if not size:
                    return str(digest.hexdigest())
                digest.update(memoryview(buffer)[:size])
                done += size

    def _wait_for(self, source: int, byte: int) -> None:
        """Wait until the work is beyond this byte of this source."""
        if self.at <= (source, byte):
            with self.moved:
                self.moved.wait_for(lambda: self.at > (source, byte))
