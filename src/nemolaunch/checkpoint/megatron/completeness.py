"""Check whether the save of a checkpoint ended. Needs neither torch nor a framework."""

from __future__ import annotations

import zipfile
from pathlib import Path

from nemolaunch.checkpoint.storage import dcp
from nemolaunch.run.folder import is_bridge, unfinished

# The last one is written after Megatron-Bridge has recorded the checkpoint as its newest
BRIDGE_FILES = ("metadata.json", dcp.METADATA, "train_state.pt", "run_config.yaml")


def incomplete(checkpoint: Path) -> str | None:
    """Return what a checkpoint folder lacks, in words, or None if it is complete."""
    if unfinished(checkpoint):
        return "its save did not end"
    if is_bridge(checkpoint):
        return _without(checkpoint, BRIDGE_FILES) or dcp.incomplete(checkpoint)
    weights = checkpoint / "weights"
    if lacks := _without(weights, ("metadata.json", "common.pt", dcp.METADATA)):
        return lacks
    if not zipfile.is_zipfile(weights / "common.pt"):
        return "common.pt is truncated"
    return dcp.incomplete(weights)


def _without(folder: Path, names: tuple[str, ...]) -> str | None:
    for name in names:
        if not (folder / name).is_file() or not (folder / name).stat().st_size:
            return f"it has no {name}"
    return None
