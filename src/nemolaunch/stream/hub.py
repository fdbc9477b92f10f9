"""Files on the Hugging Face Hub, read in place: `huggingface_hub` lists them and fetches ranges of bytes.

It reads `HF_ENDPOINT`, `HF_TOKEN` and the proxy settings from the environment, and retries requests that fail
for a temporary reason.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from nemolaunch.data.stream_spec import REMOTE
from nemolaunch.data.text_files import ENDINGS, KINDS
from nemolaunch.errors import NemolaunchError

BLOCK_BYTES = 8 << 20


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


@functools.cache
def _file_system() -> Any:
    from huggingface_hub import HfFileSystem

    return HfFileSystem(endpoint=_endpoint())


def revision_of(dataset: str, revision: str | None) -> str:
    """Return the commit of a branch or tag of a dataset. Raises NemolaunchError."""
    from huggingface_hub import HfApi

    with plain_errors(dataset):
        return str(HfApi(endpoint=_endpoint()).dataset_info(dataset, revision=revision).sha)


def find(path: str) -> list[tuple[str, int]]:
    """Return the data files, with sizes, of an `hf://datasets/…` path: a file, a glob, or a folder.

    The returned paths include the commit, so that their content stays the same. Raises NemolaunchError if
    there are none, or the hub cannot be reached.
    """
    fs = _file_system()
    with plain_errors(path):
        asked = fs.resolve_path(path)
        commit = revision_of(asked.repo_id, asked.revision)
        pinned = f"datasets/{asked.repo_id}@{commit}/{asked.path_in_repo}".rstrip("/")
        if any(letter in asked.path_in_repo for letter in "*?["):
            infos = fs.glob(pinned, detail=True)
        else:
            infos = fs.find(pinned, detail=True)
    files = [
        (REMOTE + name, int(info["size"]))
        for name, info in sorted(infos.items())
        if info["type"] == "file" and name.lower().endswith(tuple(KINDS))
    ]
    if not files:
        raise NemolaunchError(f"{path}: no file there ends in {ENDINGS}")
    return files


def open_file(path: str, size: int) -> IO[bytes]:
    """Open a file of the hub; ranges of bytes are fetched as they are read."""
    file: IO[bytes] = _file_system().open(path, "rb", size=size, block_size=BLOCK_BYTES)
    return file


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turn the library's exceptions into one sentence that says what to do."""
    import requests
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise NemolaunchError(f"{what} is on the hub, but HF_HUB_OFFLINE is set") from None
    except (requests.ConnectionError, requests.Timeout):
        where = _endpoint() or "https://huggingface.co"
        raise NemolaunchError(
            f"cannot read {what}: no connection to the hub at {where}; HF_ENDPOINT sets a mirror"
        ) from None
    except (HfHubHTTPError, FileNotFoundError, requests.RequestException, ConnectionError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NemolaunchError(
            f"cannot read {what}: {type(error).__name__}: {reason}. A gated dataset needs HF_TOKEN in the "
            "environment; HF_ENDPOINT sets a mirror"
        ) from None
