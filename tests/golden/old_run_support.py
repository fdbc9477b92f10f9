"""A run folder as written by version 0.1.0, unpacked for a test."""

from __future__ import annotations

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "old_run" / "run-0.1.0.tar.xz"
MADE_IN = "/tmp/oldrun"


def unpack(folder: Path) -> Path:
    """Unpack the run into `folder` as if it had been made there. Return the run folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for path in (folder / "run" / "plan.json", *(folder / "data").rglob("*.json")):
        path.write_text(path.read_text(encoding="utf-8").replace(MADE_IN, str(folder)), encoding="utf-8")
    return folder / "run"
