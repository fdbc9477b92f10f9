"""Imported by the process that workers are forked from: imports what they need and loads the tokenizer, side by side.

The tokenizer is loaded only if it is known from an earlier run: else its loading would run other libraries, whose
threads would not survive the fork.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemolaunch.tokenization import engines
from nemolaunch.tokenization.standby import TOKENIZER
from nemolaunch.tokenizer import library

_loaded: list[Any] = []


def _load() -> None:
    with suppress(Exception):  # a worker that needs the tokenizer loads it, and says what is wrong
        backend = library.cached_backend(Path(os.environ[TOKENIZER]))
        if backend is not None and engines.installed("fastokens"):
            _loaded.append(engines.fastokens_tokenizer(backend))


_thread = threading.Thread(target=_load)
_thread.start()
with suppress(ImportError):  # likewise
    import numpy  # noqa: F401
    import orjson  # noqa: F401

    import nemolaunch.tokenization.work  # noqa: F401
_thread.join()
for _tokenizer in _loaded:
    _tokenizer.encode_batch_flat(
        ["a"]
    )  # for the first text the library prepares tables, one set for each thread
