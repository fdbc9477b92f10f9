"""What workers import and load, imported and loaded while the command still looks at its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemolaunch.system.worker_pool import prepare_workers

MODULES = ("nemolaunch.tokenization.standby_process",)
# The folder of the tokenizer that the process loads which workers are forked from
TOKENIZER = "NEMOLAUNCH_STANDBY_TOKENIZER"
# Threads of the libraries would compete for cores with other workers, and would not survive a fork
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "FASTOKENS_BPE_THREADS": "1"}


def start_standby(tokenizer: str | Path | None = None) -> Any:
    """Start the process that workers are forked from, unless it runs. Return multiprocessing's context for them.

    Args:
        tokenizer: a folder; workers then have it loaded if it has been used on this machine before.
    """
    loads = {TOKENIZER: str(Path(tokenizer).expanduser())} if tokenizer is not None else {}
    return prepare_workers(MODULES, {**ONE_THREAD, **loads})
