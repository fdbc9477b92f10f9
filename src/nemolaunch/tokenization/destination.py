"""Outputs that go to an object store: made in a folder on this machine, then uploaded, the index last."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system import remote
from nemolaunch.system.upload import upload_files
from nemolaunch.tokenization import manifest
from nemolaunch.tokenization.request import Result, TokenizeRequest


def staging_folder(url: str, cache: Path) -> Path:
    """Return where the outputs for a URL are made, by default. Raises UsageError if it cannot be used."""
    remote.require_library(url)
    return cache / "staging" / hashlib.sha256(url.encode()).hexdigest()[:16]


def urls_of(request: TokenizeRequest) -> list[str]:
    """Return the URL of each output, without `.bin`."""
    assert request.destination is not None
    return [remote.join(request.destination, prefix.name) for prefix in request.prefixes]


def already_there(request: TokenizeRequest) -> Result | None:
    """Return the outputs of the same request that are in the store, or None.

    Raises UsageError if there are others, or the store cannot be read.
    """
    urls = urls_of(request)
    try:
        there = [url for url in urls if _exists(url + ".idx")]
        if not there or request.overwrite:
            return None
        found = [_manifest(url) for url in urls]
    except OSError as error:
        raise UsageError(f"--output-dir {request.destination}: {error.strerror}") from None
    same = manifest.identity_hash(request.identity())
    if all(made.get("identity") == same for made in found):
        return Result(request.prefixes, found, already_there=True, urls=urls)
    raise UsageError(
        f"{there[0]}.idx exists and was not made from this input with this tokenizer;"
        " use --overwrite to replace it, or another --data-prefix"
    )


def _exists(url: str) -> bool:
    try:
        return remote.stat(url).size >= 0
    except FileNotFoundError:
        return False


def _manifest(url: str) -> dict[str, Any]:
    try:
        found = json.loads(remote.read(url + ".manifest.json"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def send(request: TokenizeRequest, tell: Callable[[str], None]) -> list[str]:
    """Upload the finished outputs, and remove them here. Return their URLs.

    Raises NemolaunchError if that fails; the outputs are kept, and the same request uploads them again.
    """
    urls = urls_of(request)
    tell(f"uploading to {request.destination}")
    try:
        for url in urls:
            remote.remove(url + ".idx")  # readers open it first: there is no data set while it is replaced
        for end in (".bin", ".manifest.json", ".idx"):
            pairs = [
                (prefix.with_name(prefix.name + end), url + end)
                for prefix, url in zip(request.prefixes, urls, strict=True)
            ]
            upload_files((path, url) for path, url in pairs if path.exists())
        if request.rejects.exists():
            upload_files([(request.rejects, remote.join(str(request.destination), request.rejects.name))])
    except OSError as error:
        raise NemolaunchError(
            f"cannot upload to {error.filename or request.destination}: {error.strerror or error}; the result is kept"
            f" in {request.folder}, run the same command again to upload it"
        ) from None
    _remove_here(request)
    return urls


def _remove_here(request: TokenizeRequest) -> None:
    """Remove the outputs that have been uploaded; other shards may be under way in the same folder."""
    for prefix in request.prefixes:
        for end in (".idx", ".bin", ".manifest.json"):
            prefix.with_name(prefix.name + end).unlink(missing_ok=True)
    request.rejects.unlink(missing_ok=True)
    for folder in (request.folder, request.folder.parent):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
