"""The header of a safetensors file, read without the tensors.

Format: 8 bytes little-endian length N, N bytes of JSON, then the data; offsets in the JSON count from the
data's start and must fill it (https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.errors import NemolaunchError


@dataclass(frozen=True)
class TensorInfo:
    """Type as the file spells it ("BF16"), and shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file, by name. Raises `NemolaunchError` for a damaged or truncated file."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise NemolaunchError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    if 8 + length + end != size:
        raise NemolaunchError(
            f"{path} is truncated or damaged: {size:,} bytes, where its header says {8 + length + end:,}. "
            "Download or copy it again."
        )
    return tensors
