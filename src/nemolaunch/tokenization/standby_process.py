"""Imported by the process that workers are forked from: imports what they need and loads the tokenizer, side by side.

The tokenizer is loaded only if it is known from an earlier run: else its loading would run other libraries, whose
threads would not survive the fork.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemolaunch.tokenization import engines
from nemolaunch.tokenization.standby import TOKENIZER
from nemolaunch.tokenizer import library


def _load() -> Any:
    with suppress(Exception):  # a worker that needs the tokenizer loads it, and says what is wrong
        backend = library.cached_backend(Path(os.environ[TOKENIZER]))
        if backend is not None and engines.installed("fastokens"):
            return engines.fastokens_tokenizer(backend)
    return None


with ThreadPoolExecutor(1) as _threads:
    _loading = _threads.submit(_load)
    with suppress(ImportError):  # likewise
        import numpy  # noqa: F401
        import orjson  # noqa: F401

        import nemolaunch.tokenization.work  # noqa: F401
if (_tokenizer := _loading.result()) is not None:
    # For the first text the library prepares tables, one set for each thread
    _tokenizer.encode_batch_flat(["a"])
