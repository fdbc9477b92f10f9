"""Resolution of what users call a checkpoint: a Hugging Face folder, a checkpoint of Megatron, or a run folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nemolaunch.checkpoint.storage.formats import detect, newest_of_run
from nemolaunch.checkpoint.storage.publish import is_checkpoint
from nemolaunch.errors import UsageError
from nemolaunch.run.folder import BRIDGE_CONFIG

Say = Callable[[str], None]


def _silent(text: str) -> None:
    pass


def is_hf(folder: Path) -> bool:
    """Return whether a folder is a Hugging Face model."""
    return (folder / "config.json").is_file()


def is_megatron(folder: Path) -> bool:
    """Return whether a folder is a checkpoint of NeMo 2 or Megatron-Bridge."""
    if (folder / "context").is_dir():
        return (folder / "weights").is_dir()
    return (folder / BRIDGE_CONFIG).is_file() and (folder / ".metadata").is_file()


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint at a path: the folder itself, or the latest checkpoint of a run folder.

    Raises:
        UsageError: there is no usable checkpoint.
    """
    folder = path.expanduser()
    if not folder.exists():
        raise UsageError(f"no checkpoint at {path}; models are read from disk, so download them first")
    if is_hf(folder) or is_megatron(folder):
        return folder
    newest = newest_of_run(folder)
    if newest != folder:
        return newest
    if is_checkpoint(folder):
        raise UsageError(
            f"{path} is a checkpoint in {detect(folder)} format, which cannot be run directly: convert it first with "
            f"`nemolaunch convert {path} DIR --to hf`"
        )
    raise UsageError(
        f"{path} is not a checkpoint: a Hugging Face folder contains config.json, a NeMo 2 checkpoint context/ and "
        f"weights/, a Megatron-Bridge checkpoint {BRIDGE_CONFIG}, a run folder plan.json"
    )


@contextlib.contextmanager
def hf_folder(path: Path, say: Say | None = None, *, trust_remote_code: bool = False) -> Iterator[Path]:
    """Provide a checkpoint as a Hugging Face folder within a `with` block.

    A checkpoint of NeMo 2 or Megatron-Bridge is exported to a temporary folder, which is removed at the end.

    Raises:
        UsageError: there is no usable checkpoint.
    """
    checkpoint = find_checkpoint(path)
    if is_hf(checkpoint):
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(prefix="nemolaunch-export-") as folder:
        from nemolaunch.checkpoint.convert.convert import Options, convert

        exported = Path(folder) / "hf"
        (say or _silent)(f"exporting {checkpoint.resolve().name} to a temporary Hugging Face folder")
        convert(checkpoint, exported, "hf", Options(verify=False, trust_remote_code=trust_remote_code))
        yield exported
