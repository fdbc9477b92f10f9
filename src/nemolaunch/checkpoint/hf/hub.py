"""Fetch a model from the Hugging Face Hub, or from a server that speaks its protocol.

`huggingface_hub` does the transfer; it reads HF_TOKEN, HF_ENDPOINT, HF_HOME and the proxy settings from the
environment, and continues a download that was interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nemolaunch.checkpoint.hf.folder import TOKENIZER_PARTS
from nemolaunch.errors import NemolaunchError, UsageError

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
    return _download(source)


def tokenizer(repository: str) -> Path:
    """The folder with the tokenizer of a model on the hub, from the cache if it is there.

    Raises `NemolaunchError` if it cannot be fetched; the message says what to do.
    """
    try:
        return _download(repository, [*TOKENIZER_PARTS, "config.json"])
    except NemolaunchError as error:
        raise NemolaunchError(
            f"the checkpoint's tokenizer is that of {repository}: {error}\nOr give --tokenizer DIR"
        ) from error


def _download(repository: str, wanted: Sequence[str] = WANTED) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from requests import RequestException

    server = constants.ENDPOINT
    try:
        return Path(snapshot_download(repository, allow_patterns=list(wanted)))
    except GatedRepoError as error:
        raise NemolaunchError(
            f"{repository} is gated: ask for access at {server}/{repository} and set HF_TOKEN to your token"
        ) from error
    except RepositoryNotFoundError as error:
        raise NemolaunchError(
            f"{server} has no model {repository}, or a private one (then set HF_TOKEN), and no folder here "
            "has that name"
        ) from error
    except (LocalEntryNotFoundError, RequestException, ConnectionError) as error:
        raise NemolaunchError(
            f"{server} cannot be reached to fetch {repository}, which is not in the cache. Fetch it on a "
            f"machine that reaches it (hf download {repository} --local-dir DIR) and name that folder."
        ) from error
    except HfHubHTTPError as error:
        raise NemolaunchError(f"{server} refuses {repository}: {error}".splitlines()[0]) from error
    except OSError as error:
        raise NemolaunchError(f"cannot store {repository} in the cache: {error}") from error
