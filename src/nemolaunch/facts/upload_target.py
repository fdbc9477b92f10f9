"""Whether the place that checkpoints are uploaded to can be used from here."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from nemolaunch.system import remote


@dataclass(frozen=True)
class UploadTarget:
    """Where a run is uploaded to.

    Attributes:
        library: what is wrong with the URL, or must be installed; None if nothing.
        error: why nothing can be written there from this machine; None if it can.
    """

    url: str
    library: str | None = None
    error: str | None = None


def look_at_upload(url: str) -> UploadTarget:
    """Write an object there, and remove it."""
    if (missing := remote.missing_library(url)) is not None:
        return UploadTarget(url, library=missing)
    probe = remote.join(url, f".nemolaunch-{secrets.token_hex(4)}")
    try:
        remote.write(probe, b"")
        remote.remove(probe)
    except OSError as error:
        return UploadTarget(url, error=error.strerror or str(error))
    return UploadTarget(url)
