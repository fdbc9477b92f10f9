"""Fetch a model from the Hugging Face Hub, or from a server that speaks its protocol.

`huggingface_hub` does the transfer; it reads HF_TOKEN, HF_ENDPOINT, HF_HOME and the proxy settings from the
environment, and continues a download that was interrupted.
"""

from __future__ import annotations

import re
from pathlib import Path

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.hub import snapshot
from nemolaunch.tokenizer.files import fetch

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.py"]


def local_folder(source: str) -> Path:
    """The model folder that `source` means: a folder on disk, or else a hub id, which is downloaded.

    Raises:
        UsageError: it is neither.
        NemolaunchError: the hub cannot be reached, refuses, or the disk is full.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not HUB_ID.fullmatch(source) or source.startswith((".", "~")):
        raise UsageError(f"there is no folder {source}, and it is no hub id like org/model")
    return snapshot(source, WANTED)


def tokenizer(repository: str) -> Path:
    """The folder with the tokenizer of a model on the hub, from the cache if it is there.

    Raises `NemolaunchError` if it cannot be fetched; the message says what to do.
    """
    try:
        return fetch(repository)
    except NemolaunchError as error:
        raise NemolaunchError(
            f"the checkpoint's tokenizer is that of {repository}: {error}\nOr give --tokenizer DIR"
        ) from error
