"""Whole objects of `torch.save`, with their tensors, read without importing what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile
from nemolaunch.errors import NemolaunchError


def read_saved(path: Path, offset: int = 0, length: int | None = None) -> Any:
    """Return the object in a file of `torch.save`, or in a part of a larger file.

    Instances of unknown classes are `pickles.Opaque`. Raises `NemolaunchError` if it is damaged or missing.
    """
    files = OpenFiles()
    try:
        file = TorchFile(path, files, offset, length)
        return _whole(file, file.content)
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror or error}") from error
    finally:
        files.close()


def _whole(file: TorchFile, value: Any) -> Any:
    if isinstance(value, LazyTensor):
        return file.read(value)
    if isinstance(value, dict):
        return {key: _whole(file, each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_whole(file, each) for each in value)
    return value
