"""Fetch a model from the Hugging Face Hub, or from a server with the same protocol.

`huggingface_hub` does the transfer. It reads HF_TOKEN, HF_ENDPOINT, HF_HOME and the proxy settings from the
environment, and resumes interrupted downloads.
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
    return _download(source)


def tokenizer(repository: str) -> Path:
    """Return a folder with the tokenizer of a model on the Hub, from the cache if possible.

    Raises `NemolaunchError` if it cannot be fetched.
    """
    try:
        return _download(repository, [*TOKENIZER_PARTS, "config.json"])
    except NemolaunchError as error:
        raise NemolaunchError(
            f"the checkpoint needs the tokenizer of {repository}: {error}\nOr use --tokenizer DIR"
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
            f"{repository} is gated: request access at {server}/{repository} and set HF_TOKEN to your token"
        ) from error
    except RepositoryNotFoundError as error:
        raise NemolaunchError(
            f"{server} has no model {repository}, or it is private (then set HF_TOKEN), and there is no folder of "
            "that name here"
        ) from error
    except (LocalEntryNotFoundError, RequestException, ConnectionError) as error:
        raise NemolaunchError(
            f"{server} cannot be reached to fetch {repository}, which is not in the cache. Download it on a machine "
            f"with access (hf download {repository} --local-dir DIR) and use that folder."
        ) from error
    except HfHubHTTPError as error:
        raise NemolaunchError(f"{server} refused {repository}: {error}".splitlines()[0]) from error
    except OSError as error:
        raise NemolaunchError(f"cannot store {repository} in the cache: {error}") from error
