"""Upload a model folder to the Hugging Face Hub, or a server that speaks its protocol.

`huggingface_hub` does the transfer: it sends what the repository does not have, tries again after a dropped
connection, and makes no commit where nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.errors import NemolaunchError, UsageError

CARD = "README.md"
PATTERNS = (
    "*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py", "LICENSE*",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What was done.

    Attributes:
        url: the repository's page.
        commit: its latest commit.
        sent: bytes of the files that the commit holds and the one before did not; 0 if nothing has changed.
        tag: the tag that names this commit.
        private: whether only its owners see it.
    """

    url: str
    commit: str
    sent: int
    tag: str | None
    private: bool


def files_of(folder: Path) -> list[Path]:
    """The files of a model folder that belong on the Hub, sorted. UsageError if there are no weights."""
    found = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in found):
        raise UsageError(f"{folder} has no *.safetensors, so there are no weights to publish")
    return found


def upload(
    folder: Path,
    repository: str,
    card: str,
    *,
    public: bool = False,
    tag: str | None = None,
    collection: str | None = None,
    message: str = "Upload model",
) -> Upload:
    """Make the repository if needed, private unless told, and commit the folder's files and the card.

    Args:
        tag: names the commit; an existing tag stays where it is if nothing has changed, else it is an error.
        collection: slug of a collection to add the model to, or a title under which one is made.

    Raises:
        UsageError: no weights, or a name that is none.
        NemolaunchError: the server cannot be reached, or refuses; the message says what to do.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files = files_of(folder)
    with _plain_errors(repository):
        api.create_repo(repository, private=not public, exist_ok=True)
        info = api.model_info(repository)
        before = info.sha
        operations = [CommitOperationAdd(path.name, path) for path in files]
        operations.append(CommitOperationAdd(CARD, card.encode()))
        commit = api.create_commit(repository, operations, commit_message=message).oid
        if tag:
            api.create_tag(repository, tag=tag, revision=commit, exist_ok=True)
        if collection:
            _add_to_collection(api, collection, repository, private=not public)
    sent = 0 if commit == before else sum(operation.upload_info.size for operation in operations)
    url = f"{api.endpoint}/{repository}"
    return Upload(url=url, commit=commit, sent=sent, tag=tag, private=bool(info.private))


def _add_to_collection(api: object, collection: str, repository: str, *, private: bool) -> None:
    from huggingface_hub import HfApi

    assert isinstance(api, HfApi)
    slug = collection
    if "/" not in collection:
        owner = repository.split("/")[0]
        slug = api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
    api.add_collection_item(slug, item_id=repository, item_type="model", exists_ok=True)


@contextmanager
def _plain_errors(repository: str) -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from requests import RequestException

    server = constants.ENDPOINT
    try:
        yield
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is no name of a repository: {str(error).splitlines()[0]}") from None
    except LocalTokenNotFoundError:
        raise NemolaunchError(
            "there is no token: set HF_TOKEN in the environment to one that may write"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        advice = {
            401: "set HF_TOKEN in the environment to a token that may write to it",
            403: "the token in HF_TOKEN may not write to it: take one with the write permission, or another name",
        }.get(status if isinstance(status, int) else 0, "the same command goes on where it was")
        raise NemolaunchError(f"{server} answered {status} for {repository}: {advice}") from None
    except (RequestException, RuntimeError) as error:
        cause = error.__cause__ or error
        raise NemolaunchError(
            f"the upload to {server} broke off ({type(cause).__name__}); the same command sends what is missing"
        ) from None
