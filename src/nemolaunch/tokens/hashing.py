"""SHA-256 of the input files, in a thread beside the work, so that `sha256sum` can check a manifest."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

from nemolaunch.tokens.files import write_json
from nemolaunch.tokens.sources import Source


class Hasher:
    """Hashes files from its creation on; those done are kept in `saved` for a resumed run."""

    def __init__(self, sources: list[Source], saved: Path) -> None:
        self.sources = sources
        self.saved = saved
        self.hashes: dict[str, str] = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
        self.error: OSError | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for source in self.sources:
                if source.path not in self.hashes:
                    self.hashes[source.path] = sha256(source.path)
                    if source.size > 1 << 28:
                        write_json(self.saved, self.hashes, durable=False)
        except OSError as error:
            self.error = error

    def result(self) -> dict[str, str]:
        """All hashes by path, as soon as they are there. Raises OSError if a file could not be read."""
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.hashes


def sha256(path: str) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
