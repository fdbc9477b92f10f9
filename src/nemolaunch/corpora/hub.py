"""Files of a dataset on the Hugging Face Hub, or on a server that speaks its protocol.

`huggingface_hub` does the transfer: it continues a broken one, verifies the size, keeps the file in its
cache, and reads `HF_ENDPOINT`, `HF_TOKEN` and the proxy settings from the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemolaunch.errors import NemolaunchError


class NoSuchFolder(NemolaunchError):
    """The dataset has no folder of that name."""


def list_folder(dataset: str, folder: str, endpoint: str | None) -> list[str]:
    """Paths of what lies directly in `folder` of the dataset (`""`: its root), sorted.

    Raises `NoSuchFolder`, or `NemolaunchError` when the server cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi(endpoint=endpoint)
    with _plain_errors(dataset, endpoint):
        try:
            entries = list(api.list_repo_tree(dataset, folder or None, repo_type="dataset"))
        except EntryNotFoundError as error:
            raise NoSuchFolder(f"dataset {dataset} has no folder {folder!r}") from error
    return sorted(entry.path for entry in entries)


def fetch(dataset: str, path: str, endpoint: str | None, cache_dir: Path | None) -> Path:
    """Download one file of the dataset unless it is in the cache already. Returns where it lies.

    An interrupted download is continued by the next call. Raises `NemolaunchError` as `list_folder` does.
    """
    from huggingface_hub import hf_hub_download

    with _plain_errors(dataset, endpoint):
        return Path(
            hf_hub_download(dataset, path, repo_type="dataset", endpoint=endpoint, cache_dir=cache_dir)
        )


@contextmanager
def _plain_errors(dataset: str, endpoint: str | None) -> Iterator[None]:
    """Turn what the libraries raise into one sentence that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from requests import RequestException

    server = endpoint or constants.ENDPOINT
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise NemolaunchError(_unreachable(server, _no_connection(error.__cause__ or error))) from error
    except HfHubHTTPError as error:
        raise NemolaunchError(_refused(server, dataset, error)) from error
    except (RequestException, ConnectionError) as error:
        raise NemolaunchError(_unreachable(server, _no_connection(error))) from error
    except OSError as error:
        if error.errno is None:  # a transfer that ended early, found by its size
            raise NemolaunchError(_unreachable(server, "the transfer ended early")) from error
        raise NemolaunchError(
            f"cannot store {dataset}: {error}. Free some space, or put the cache elsewhere with --cache-dir; "
            "the same command then continues."
        ) from error


def _no_connection(error: BaseException) -> str:
    return f"no connection ({type(error).__name__})"


def _unreachable(server: str, reason: str) -> str:
    return (
        f"cannot download from {server}: {reason}. What is downloaded so far is kept: the same "
        "command continues. On a machine without internet, name a mirror with --endpoint or HF_ENDPOINT, set "
        "HTTPS_PROXY, or run the command elsewhere and copy the output."
    )


def _refused(server: str, dataset: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    advice = {
        401: "Set HF_TOKEN in the environment to a token that may read it.",
        403: "Set HF_TOKEN in the environment to a token that may read it.",
        404: "Check --endpoint: this server does not have the dataset.",
        429: "Too many requests: wait a little, or set HF_TOKEN, which raises the limit.",
    }
    return (
        f"{server} answered {status} for dataset {dataset}. "
        f"{advice.get(status or 0, 'Try again later; the same command continues what is downloaded so far.')}"
    )
