"""Check whether the save of a NeMo 2 checkpoint ended. Needs neither torch nor NeMo."""

from __future__ import annotations

import zipfile
from pathlib import Path

from nemolaunch.checkpoint.storage import dcp
from nemolaunch.run.folder import unfinished


def incomplete(checkpoint: Path) -> str | None:
    """Return what a checkpoint folder lacks, in words, or None if it is complete."""
    if unfinished(checkpoint):
        return "its save did not end"
    weights = checkpoint / "weights"
    for name in ("metadata.json", "common.pt", dcp.METADATA):
        if not (weights / name).is_file() or not (weights / name).stat().st_size:
            return f"it has no {name}"
    if not zipfile.is_zipfile(weights / "common.pt"):
        return "common.pt is truncated"
    return dcp.incomplete(weights)
