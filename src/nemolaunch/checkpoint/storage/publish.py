"""Write a checkpoint atomically: it appears under its name only when it is complete."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nemolaunch.checkpoint.storage.formats import detect
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.atomic_files import sync_folder
from nemolaunch.system.replacement import replacing, tidy


@contextmanager
def publishing(
    final: Path, *, overwrite: bool = False, tell: Callable[[str], None] = lambda text: None
) -> Iterator[Path]:
    """Yield a path to write a file or folder to, which gets the name `final` if the block ends without an error.

    It is written next to `final`, on the same file system, and flushed to disk. Until then, and after an error, an
    existing `final` is left as it was.

    Args:
        tell: called with a sentence about what an interrupted conversion has left, which is removed.

    Raises:
        UsageError: `final` exists and `overwrite` is false, `final` is not a checkpoint, or it cannot be written.
    """
    for leftover in tidy(final):  # which may give an earlier checkpoint its name back
        tell(f"removed {leftover}, left by an interrupted conversion")
    check_free(final, overwrite=overwrite)

    def ready(new: Path) -> None:
        _flush(new)
        check_free(final, overwrite=overwrite)  # another conversion may have finished first

    with _replacing(final, ready) as new:
        yield new


@contextmanager
def _replacing(final: Path, ready: Callable[[Path], None]) -> Iterator[Path]:
    """Begin to replace `final`, with an error for the user if nothing can be written there."""
    with ExitStack() as stack:
        try:
            new = stack.enter_context(replacing(final, ready))
        except OSError as error:
            raise UsageError(
                f"cannot write to {final.parent}: {error.strerror}; choose another --output-path"
            ) from error
        yield new


def check_free(final: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` unless a checkpoint may be written to `final`."""
    if not final.exists() and not final.is_symlink():
        return
    if not overwrite:
        raise UsageError(f"{final} exists; use --overwrite to replace it, or another --output-path")
    if final.is_symlink():
        raise UsageError(
            f"{final} is a symbolic link, which --overwrite does not replace. Use another --output-path."
        )
    empty = final.is_dir() and not any(final.iterdir())
    if not (empty or is_checkpoint(final)):
        raise UsageError(
            f"{final} is not a checkpoint, so --overwrite does not replace it. Use another --output-path."
        )


def check_apart(source: Path, final: Path) -> None:
    """Raise `UsageError` if one of the folders contains the other, or they are the same."""
    a, b = source.resolve(), final.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise UsageError(f"the output {final} and the source {source} overlap; use another --output-path")


def check_space(needed_bytes: int, output: Path) -> None:
    """Raise `NemolaunchError` if there is not that much space where `output` is to be."""
    there = next(folder for folder in output.parents if folder.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise NemolaunchError(
            f"not enough disk space in {there}: {size(needed_bytes)} are needed, {size(free)} are free"
        )


def size(count: int) -> str:
    """Return a number of bytes as text."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def is_checkpoint(path: Path) -> bool:
    """Return whether a file or folder is a checkpoint in any format."""
    try:
        detect(path)
    except UsageError:
        return False
    return True


def explain_os_error(error: OSError, doing: str) -> NemolaunchError:
    """Return an error that describes a full disk, a missing permission, and the like in one line."""
    # When a copy fails on a full disk, the error names the file that was being read
    named = error.filename and error.errno not in (errno.ENOSPC, errno.EDQUOT)
    where = f": {error.filename}" if named else ""
    return NemolaunchError(f"{doing} failed: {error.strerror or error}{where}")


def _flush(written: Path) -> None:
    """Flush a file or folder to disk, with permissions by the umask: safetensors makes its files private."""
    mask = os.umask(0)
    os.umask(mask)
    if written.is_file():
        _flush_file(written, mask)
    for path, _, names in os.walk(written):
        for name in names:
            _flush_file(Path(path, name), mask)
        sync_folder(Path(path))


def _flush_file(path: Path, mask: int) -> None:
    with open(path, "rb") as file:
        if (
            os.fstat(file.fileno()).st_nlink == 1
        ):  # permissions of a link would be those of the other file, too
            os.fchmod(file.fileno(), 0o666 & ~mask)
        os.fsync(file.fileno())
