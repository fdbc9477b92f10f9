"""What a user calls a checkpoint: a Hugging Face folder, a NeMo 2 folder or a run folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from nemolaunch.checkpoint.storage.formats import detect, newest_of_run
from nemolaunch.checkpoint.storage.publish import is_checkpoint
from nemolaunch.errors import UsageError

Say = Callable[[str], None]


def _silent(text: str) -> None:
    pass


def is_hf(folder: Path) -> bool:
    """Whether it is a model folder as transformers writes it."""
    return (folder / "config.json").is_file()


def is_nemo2(folder: Path) -> bool:
    """Whether it is a NeMo 2 checkpoint."""
    return (folder / "context").is_dir() and (folder / "weights").is_dir()


def find_checkpoint(path: Path) -> Path:
    """The checkpoint a path stands for: itself, or the newest one of a run folder.

    Raises:
        UsageError: there is none.
    """
    folder = path.expanduser()
    if not folder.exists():
        raise UsageError(f"there is no checkpoint {path}; models are read from disk, download them first")
    if is_hf(folder) or is_nemo2(folder):
        return folder
    newest = newest_of_run(folder)
    if newest != folder:
        return newest
    if is_checkpoint(folder):
        raise UsageError(
            f"{path} is a checkpoint in the format {detect(folder)}, which cannot be run as it is: "
            f"`nemolaunch convert {path} DIR --to hf` first"
        )
    raise UsageError(
        f"{path} is no checkpoint: a Hugging Face folder has config.json, a NeMo 2 checkpoint has context/ "
        "and weights/, a run has plan.json"
    )


@contextlib.contextmanager
def hf_folder(path: Path, say: Say | None = None) -> Iterator[Path]:
    """A Hugging Face folder of the checkpoint, for as long as the block lasts.

    A NeMo 2 checkpoint is exported to a temporary folder, which is removed afterwards.

    Raises:
        UsageError: there is no such checkpoint.
    """
    checkpoint = find_checkpoint(path)
    if is_hf(checkpoint):
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(prefix="nemolaunch-export-") as folder:
        from nemolaunch.checkpoint.convert.convert import Options, convert

        exported = Path(folder) / "hf"
        (say or _silent)(f"exporting {checkpoint.resolve().name} to a temporary Hugging Face folder")
        convert(checkpoint, exported, "hf", Options(verify=False))
        yield exported
