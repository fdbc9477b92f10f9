"""Check what the pickles in a distributed checkpoint's folder name before torch and Megatron see them.

These are `.metadata`, `*.pt`, and everything in the `*.distcp` files that `.metadata` does not call a tensor: torch
reads tensors without running anything, but objects with an ordinary unpickler.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemolaunch.system.json_files import read_json
from nemolaunch.trust import pickles
from nemolaunch.trust.links import is_within
from nemolaunch.trust.names import fault, may_be_pickled
from nemolaunch.trust.pickled import MOST_PICKLE_BYTES, Names, names_in, names_in_saved

METADATA = ".metadata"
BACKENDS = {"sharded_backend": "torch_dist", "common_backend": "torch"}  # others have readers of their own
MOST_METADATA_BYTES = 1 << 20
EXTRA_STATE = "_extra_state"
TENSOR = "TensorStorageMetadata"


def weights_fault(weights: Path, checkpoint: Path) -> str | None:
    """Return what is wrong with what a folder's pickles name, as a clause; None if nothing is.

    `checkpoint` is the folder that everything has to be in: the parent of `weights` for NeMo 2, the same for Bridge.
    """
    for path in _files(weights):
        shown = str(path.relative_to(checkpoint))
        if not is_within(path, checkpoint):
            return f"its {shown} is a link to {os.path.realpath(path)}, outside the checkpoint"
        try:
            found = (
                _backend_fault(path, shown)
                if path.name == "metadata.json"
                else _names_fault(path, checkpoint)
            )
        except Exception as error:  # a damaged pickle can raise anything
            return f"its {shown} cannot be read: {type(error).__name__}: {error}"
        if found:
            return found
    return None


def _files(weights: Path) -> Iterator[Path]:
    """Yield the files that are not only tensors, in the folder and those in it."""
    for folder, folders, names in os.walk(weights):
        folders.sort()
        for name in sorted(names):
            if name in (METADATA, "metadata.json") or name.endswith((".pt", ".pkl")):
                yield Path(folder, name)


def _backend_fault(path: Path, shown: str) -> str | None:
    content = read_json(path, MOST_METADATA_BYTES)
    for name, allowed in BACKENDS.items():
        given = content.get(name, allowed) if isinstance(content, dict) else None
        if given != allowed:
            return f"its {shown} says {name} {given!r}, but only {allowed!r} is loaded"
    return None


def _names_fault(path: Path, checkpoint: Path) -> str | None:
    with open(path, "rb") as file:
        names = names_in(file) if path.name == METADATA else names_in_saved(file)
    refused = [name for name in names if not may_be_pickled(*name)]
    found = fault(str(path.relative_to(checkpoint)), refused)
    return found or (_objects_fault(path, checkpoint) if path.name == METADATA else None)


def _objects_fault(path: Path, checkpoint: Path) -> str | None:
    """Check the objects in the files that a `.metadata` describes."""
    with open(path, "rb") as file:
        metadata = pickles.load(file)
    kinds = metadata.state_dict_metadata
    for index, info in (getattr(metadata, "storage_data", None) or {}).items():
        if type(kinds.get(index.fqn)).__name__ == TENSOR:
            continue
        stored = path.parent / str(info.relative_path)
        refused = [
            name for name in _stored_names(stored, checkpoint, index.fqn, info) if not may_be_pickled(*name)
        ]
        found = fault(f"{os.path.relpath(stored, checkpoint)} ({index.fqn})", refused)
        if found:
            return found
    return None


def _stored_names(path: Path, checkpoint: Path, name: str, info: Any) -> Names:
    if not path.is_file():
        return set()  # reported as incomplete elsewhere
    if not is_within(path, checkpoint):
        raise ValueError(f"it names {info.relative_path!r}, outside the checkpoint")
    if not 0 <= info.length <= MOST_PICKLE_BYTES:
        raise ValueError(f"an object in {info.relative_path} has {info.length:,} bytes")
    with open(path, "rb") as file:
        file.seek(info.offset)
        # Transformer Engine unpickles what it saved as bytes
        return names_in_saved(io.BytesIO(file.read(info.length)), nested=EXTRA_STATE in name)
