"""Check whether the save of a checkpoint ended. Needs neither torch nor a framework."""

from __future__ import annotations

import zipfile
from pathlib import Path

from nemolaunch.checkpoint.storage import dcp
from nemolaunch.run.folder import BRIDGE_CONFIG, is_bridge, unfinished


def incomplete(checkpoint: Path) -> str | None:
    """Return what a checkpoint folder lacks, in words, or None if it is complete."""
    if unfinished(checkpoint):
        return "its save did not end"
    of_bridge = is_bridge(checkpoint)
    weights = checkpoint if of_bridge else checkpoint / "weights"
    state = "train_state.pt" if of_bridge else "common.pt"
    for name in ("metadata.json", state, dcp.METADATA, *([BRIDGE_CONFIG] if of_bridge else [])):
        if not (weights / name).is_file() or not (weights / name).stat().st_size:
            return f"it has no {name}"
    if not zipfile.is_zipfile(weights / state):
        return f"{state} is truncated"
    return dcp.incomplete(weights)
