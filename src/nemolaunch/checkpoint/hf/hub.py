"""Fetch a model from the Hugging Face Hub, or from a server with the same protocol.

`huggingface_hub` does the transfer. It reads HF_TOKEN, HF_ENDPOINT, HF_HOME and the proxy settings from the
environment, and resumes interrupted downloads.
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
    """Return the model folder for `source`: a folder on disk, or a Hub id, which is downloaded.

    Raises:
        UsageError: it is neither.
        NemolaunchError: the Hub cannot be reached or refuses the request, or the disk is full.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not HUB_ID.fullmatch(source) or source.startswith((".", "~")):
        raise UsageError(f"{source} is neither an existing folder nor a Hub id like org/model")
    return snapshot(source, WANTED)


def tokenizer(repository: str) -> Path:
    """Return a folder with the tokenizer of a model on the Hub, from the cache if possible.

    Raises `NemolaunchError` if it cannot be fetched.
    """
    try:
        return fetch(repository)
    except NemolaunchError as error:
        raise NemolaunchError(
            f"the checkpoint needs the tokenizer of {repository}: {error}\nOr use --tokenizer DIR"
        ) from error
