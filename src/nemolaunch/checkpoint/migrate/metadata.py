"""The `.metadata` of a distributed checkpoint with other names, for the same data files.

Only torch's own classes of the format are made from the file that is read; nothing else that it names is imported.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.dcp import METADATA
from nemolaunch.errors import NemolaunchError
from nemolaunch.trust import pickles


def rewrite(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Write the `.metadata` of the folder `source` to `target`, with the new name of each old one in `names`.

    What is not in `names` is left out.

    Raises:
        NemolaunchError: it says more of a tensor than where it is, which a checkpoint with whole tensors does not.
    """
    import dataclasses

    import torch.distributed.checkpoint.metadata as dcp

    found = _read(source / METADATA)
    reformed = sorted(name for name, about in (getattr(found, "mcore_data", None) or {}).items() if about)
    if reformed:
        raise NemolaunchError(
            f"{source}: {reformed[0]} is stored in another shape than it has (mcore_data), which is not supported"
        )
    new = dcp.Metadata(
        state_dict_metadata={
            names[name]: entry for name, entry in found.state_dict_metadata.items() if name in names
        },
        storage_data={
            dataclasses.replace(index, fqn=names[index.fqn]): info
            for index, info in found.storage_data.items()
            if index.fqn in names
        },
    )
    with open(target / METADATA, "wb") as file:
        pickle.dump(new, file)


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        return pickles.load(file, _known())


def _known() -> dict[tuple[str, str], Any]:
    """Return the classes of torch's format, by the names that pickles have for them."""
    import torch
    import torch.distributed.checkpoint.metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.serialization import _get_layout

    from nemolaunch.checkpoint.storage.tensors import ITEM_BYTES

    classes = (
        dcp.BytesStorageMetadata, dcp.ChunkStorageMetadata, dcp.MetadataIndex, dcp.TensorProperties,
        dcp.TensorStorageMetadata, dcp._MEM_FORMAT_ENCODING, _StorageInfo, torch.Size, _get_layout,
    )  # fmt: skip
    return {
        **{(cls.__module__, cls.__name__): cls for cls in classes},
        ("torch", "Size"): torch.Size,
        **{("torch", name): getattr(torch, name) for name in ITEM_BYTES if hasattr(torch, name)},
    }
