"""A model folder for the installed transformers: version 4 silently ignores names that only version 5 knows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from nemolaunch.checkpoint.hf.folder import read_written_config
from nemolaunch.families.config_json import canonical

CONFIG = "config.json"


@contextmanager
def loadable(folder: Path) -> Iterator[Path]:
    """Yield the folder, or links to its files with a `config.json` that the installed transformers understands.

    A model loaded from it does not need it any longer. Raises NemolaunchError if `config.json` contradicts itself.
    """
    written = read_written_config(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    understood = canonical(written)
    if written == understood or int(version("transformers").split(".")[0]) > 4:
        yield folder  # without a file, transformers says that it is missing
        return
    with tempfile.TemporaryDirectory(prefix="nemolaunch-model-") as name:
        copy = Path(name)
        for path in folder.iterdir():
            if path.name != CONFIG:
                (copy / path.name).symlink_to(path.absolute())
        (copy / CONFIG).write_text(json.dumps(understood, indent=2), encoding="utf-8")
        yield copy
