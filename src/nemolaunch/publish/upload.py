"""Upload a model folder to the Hugging Face Hub, or to a server with the same protocol.

`huggingface_hub` handles the transfer: it sends only what the repository lacks, retries after a dropped connection,
and creates no commit if nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.trust.links import check_within

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
PATTERNS = (
    "*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py", "LICENSE*",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The result of an upload.

    Attributes:
        url: the page of the repository.
        commit: its latest commit.
        sent: bytes of the files that the commit added; 0 if nothing has changed.
        tag: the tag of this commit.
        private: whether the repository is private.
    """

    url: str
    commit: str
    sent: int
    tag: str | None
    private: bool


def files_of(folder: Path) -> list[Path]:
    """Return the files of a model folder that belong on the Hub, sorted.

    Raises:
        UsageError: there are no weights.
    """
    found = sorted({path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()})
    for path in found:
        check_within(path, folder)
    if not any(path.suffix == ".safetensors" for path in found):
        raise UsageError(f"{folder} contains no *.safetensors, so there are no weights to publish")
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
    """Commit the files of a folder and the card to a repository, which is created if needed.

    Args:
        public: create a public repository; an existing one keeps its visibility.
        tag: tag of the commit.
        collection: slug of a collection to add the model to, or the title of a collection to create.

    Raises:
        UsageError: the folder has no weights, or the repository name is invalid.
        NemolaunchError: the server is unreachable or refuses, or the tag names another commit; the message says what
            to do.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files = files_of(folder)
    with _translated_errors(repository):
        api.create_repo(repository, private=not public, exist_ok=True)
        info = api.model_info(repository)
        before = info.sha
        operations = [CommitOperationAdd(path.name, path) for path in files]
        operations.append(CommitOperationAdd(CARD, card.encode()))
        commit = api.create_commit(repository, operations, commit_message=message).oid
        if tag:
            _tag(api, repository, tag, commit)
        if collection:
            _add_to_collection(api, collection, repository, private=not public)
    sent = 0 if commit == before else sum(operation.upload_info.size for operation in operations)
    url = f"{api.endpoint}/{repository}"
    return Upload(url=url, commit=commit, sent=sent, tag=tag, private=bool(info.private))


def _tag(api: HfApi, repository: str, tag: str, commit: str) -> None:
    """Name a commit. A tag of that name that is there already is not moved: others may rely on what it names."""
    api.create_tag(repository, tag=tag, revision=commit, exist_ok=True)
    named = api.model_info(repository, revision=tag).sha
    if named != commit:
        raise NemolaunchError(
            f"the model is in {repository} as commit {commit[:8]}, but the tag {tag} existed before and names commit "
            f"{(named or 'unknown')[:8]}: set another --tag, or delete the old one there"
        )


def _add_to_collection(api: HfApi, collection: str, repository: str, *, private: bool) -> None:
    slug = collection
    if "/" not in collection:
        owner = repository.split("/")[0]
        slug = api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
    api.add_collection_item(slug, item_id=repository, item_type="model", exists_ok=True)


@contextmanager
def _translated_errors(repository: str) -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from requests import RequestException

    server = constants.ENDPOINT
    try:
        yield
    except HFValidationError as error:
        raise UsageError(
            f"{repository!r} is not a valid repository name: {str(error).splitlines()[0]}"
        ) from None
    except LocalTokenNotFoundError:
        raise NemolaunchError(
            "no access token: set HF_TOKEN in the environment to a token with write permission"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        advice = {
            401: "set HF_TOKEN in the environment to a token with write permission",
            403: "the token in HF_TOKEN has no write permission; use another token or another repository",
        }.get(status if isinstance(status, int) else 0, "run the same command again to continue")
        raise NemolaunchError(f"{server} answered {status} for {repository}: {advice}") from None
    except (RequestException, RuntimeError) as error:
        cause = error.__cause__ or error
        raise NemolaunchError(
            f"the upload to {server} was interrupted ({type(cause).__name__}); run the same command again to resume"
        ) from None
