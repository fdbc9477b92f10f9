"""The package's own files as an archive, which a job or a cluster's login node runs."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path


def archive() -> bytes:
    """Return a `.tar.gz` of the folder `nemolaunch`; the same code always gives the same bytes."""
    source = Path(__file__).parents[1]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in sorted(source.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                entry = tarfile.TarInfo(str(Path(source.name) / file.relative_to(source)))
                entry.size = file.stat().st_size
                with open(file, "rb") as content:
                    tar.addfile(entry, content)
    return gzip.compress(buffer.getvalue(), mtime=0)
