"""A model folder for the installed transformers: version 4 silently ignores names that only version 5 knows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from nemolaunch.checkpoint.hf.folder import read_config, read_json
from nemolaunch.errors import NemolaunchError

CONFIG = "config.json"


@contextmanager
def loadable(folder: Path) -> Iterator[Path]:
    """Yield the folder, or links to its files with a `config.json` that the installed transformers understands.

    A model loaded from it does not need it any longer. Raises NemolaunchError if `config.json` contradicts itself.
    """
    try:
        written, understood = read_json(folder / CONFIG), read_config(folder / CONFIG)
    except NemolaunchError:
        if (folder / CONFIG).is_file():
            raise
        yield folder  # transformers says what is missing
        return
    if written == understood or int(version("transformers").split(".")[0]) > 4:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="nemolaunch-model-") as name:
        copy = Path(name)
        for path in folder.iterdir():
            if path.name != CONFIG:
                (copy / path.name).symlink_to(path.absolute())
        (copy / CONFIG).write_text(json.dumps(understood, indent=2), encoding="utf-8")
        yield copy
