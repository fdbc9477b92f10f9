"""The package's own files, as an archive or in a folder, for a job or a cluster's login node to run."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def archive() -> bytes:
    """Return a `.tar.gz` of the folder `nemolaunch`; the same code always gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in sorted(PACKAGE.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                entry = tarfile.TarInfo(str(Path(PACKAGE.name) / file.relative_to(PACKAGE)))
                entry.size = file.stat().st_size
                with open(file, "rb") as content:
                    tar.addfile(entry, content)
    return gzip.compress(buffer.getvalue(), mtime=0)


def copy_to(folder: Path) -> None:
    """Copy the folder `nemolaunch` into a folder."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
