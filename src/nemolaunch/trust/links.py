"""Files that a folder from elsewhere names or links to, and which have to be in it."""

from __future__ import annotations

import os
from pathlib import Path

from nemolaunch.errors import NemolaunchError


def is_within(path: Path, folder: Path) -> bool:
    """Return whether a path is in a folder once links are followed; a snapshot of the Hub may link to its blobs."""
    root = os.path.realpath(folder)
    above, snapshots = os.path.split(os.path.dirname(root))[0], os.path.basename(os.path.dirname(root))
    if snapshots == "snapshots" and os.path.isdir(os.path.join(above, "blobs")):
        root = above
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def named_file(folder: Path, name: str, named_by: Path) -> Path:
    """Return the path of a file that another file of its folder names.

    Raises:
        NemolaunchError: it is not in the folder.
    """
    if (
        "\0" in name
        or os.path.isabs(name)
        or ".." in Path(name).parts
        or not is_within(folder / name, folder)
    ):
        raise NemolaunchError(f"{named_by} names {name!r}, which is not in {folder}: it is not read")
    return folder / name


def check_within(path: Path, folder: Path) -> None:
    """Raise `NemolaunchError` if a file of a folder is a link to a place outside it."""
    if path.is_symlink() and not is_within(path, folder):
        raise NemolaunchError(
            f"{path} is a link to {os.path.realpath(path)}, outside its folder, and is not followed: copy the file "
            "into the folder if it belongs there"
        )
