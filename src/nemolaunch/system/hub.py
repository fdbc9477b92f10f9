"""Files of a model's repository on the Hugging Face Hub, or on a server that speaks its protocol.

`huggingface_hub` does the transfer; it reads HF_TOKEN, HF_ENDPOINT, HF_HOME and the proxy settings from the
environment, and continues an interrupted download.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemolaunch.errors import NemolaunchError


def snapshot(repository: str, patterns: Sequence[str], token: str | None = None) -> Path:
    """Return the folder in the cache with a repository's files that match, downloaded if needed.

    Raises:
        NemolaunchError: the hub cannot be reached or refuses, or the disk is full; the message says what to
            do.
    """
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
        return Path(snapshot_download(repository, allow_patterns=list(patterns), token=token))
    except GatedRepoError as error:
        raise NemolaunchError(
            f"{repository} is gated: request access at {server}/{repository}, then set HF_TOKEN to your token"
        ) from error
    except RepositoryNotFoundError as error:
        raise NemolaunchError(
            f"{server} has no model {repository}, or it is private (then set HF_TOKEN), and there is no folder "
            "of that name here"
        ) from error
    except (LocalEntryNotFoundError, RequestException, ConnectionError) as error:
        raise NemolaunchError(
            f"{server} cannot be reached to fetch {repository}, which is not in the cache. Fetch it on a "
            f"machine that can reach it (hf download {repository} --local-dir DIR) and give that folder instead"
        ) from error
    except HfHubHTTPError as error:
        raise NemolaunchError(f"{server} refuses {repository}: {error}".splitlines()[0]) from error
    except OSError as error:
        raise NemolaunchError(f"cannot store {repository} in the cache: {error}") from error
    except Exception as error:  # an invalid name, or whatever else the library raises
        reason = " ".join(str(error).split())[:300]
        raise NemolaunchError(f"cannot fetch {repository} ({type(error).__name__}: {reason})") from error
