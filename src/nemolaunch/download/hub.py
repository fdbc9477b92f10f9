"""Repositories of the Hugging Face Hub, or of a server that speaks its protocol.

`huggingface_hub` does the transfer: it resumes interrupted ones, verifies the size, keeps files in its cache,
and reads `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_TOKEN` and the proxy settings from the environment.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import posixpath
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.tokenizer import files as tokenizer_files

WATCH_EVERY_S = 1.0
WEIGHTS = ("*.safetensors", "*.bin")
BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.py", "*.jinja")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository's content. `kind` is `dataset` or `model`; `files` are sizes in bytes by path."""

    name: str
    kind: str
    revision: str
    files: dict[str, int]
    licence: str | None = None
    subsets: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The requested part of a repository: patterns, and the files they match."""

    repository: Repository
    patterns: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""
        return sum(self.repository.files[path] for path in self.files)


@dataclass(frozen=True, kw_only=True)
class Where:
    """Source and destination of a download: server, cache, or a plain folder instead of the cache."""

    endpoint: str | None = None
    cache_dir: Path | None = None
    output_dir: Path | None = None
    workers: int = 8


def look(name: str, kind: str, revision: str | None, where: Where) -> Repository:
    """Return a repository's files, licence and subsets.

    Raises NemolaunchError, with what to do, if it cannot be read.
    """
    from huggingface_hub import HfApi

    with _plain_errors(name, kind, where.endpoint):
        found = HfApi(endpoint=where.endpoint).repo_info(
            name, repo_type=kind, revision=revision, files_metadata=True
        )
    card = found.card_data.to_dict() if found.card_data else {}
    licence = card.get("license")
    return Repository(
        name=name,
        kind=kind,
        revision=str(found.sha),
        files={file.rfilename: file.size or 0 for file in found.siblings or ()},
        licence=", ".join(licence) if isinstance(licence, list) else licence,
        subsets={
            str(c["config_name"]): _patterns(c) for c in card.get("configs") or () if "config_name" in c
        },
    )


def _patterns(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the patterns of a subset in a data set's card: a string, a list, or a list by split."""
    given = config.get("data_files") or config.get("data_dir") or "*"
    found: list[str] = []
    for entry in [given] if isinstance(given, str | dict) else given:
        path = entry.get("path", "*") if isinstance(entry, dict) else entry
        found += [path] if isinstance(path, str) else path
    folder = config.get("data_dir")
    inside = [p if not folder or p.startswith(folder) else posixpath.join(folder, p) for p in found]
    return tuple(p if "*" in p or posixpath.splitext(p)[1] else posixpath.join(p, "*") for p in inside)


def select(repository: Repository, subset: str | None, allow: list[str]) -> Selection:
    """Select the files of a subset, of patterns, or of patterns within a subset.

    Raises UsageError for a subset that does not exist, or patterns that match nothing.
    """
    patterns = _of_subset(repository, subset) if subset else ()
    if allow and patterns:
        patterns = tuple(_inside(p, name) for p in patterns for name in allow)
    return _matching(repository, patterns or tuple(allow) or ("*",))


def _of_subset(repository: Repository, subset: str) -> tuple[str, ...]:
    if subset in repository.subsets:
        return repository.subsets[subset]
    folders = {posixpath.dirname(path) for path in repository.files}
    folders |= {parent for folder in folders for parent in _parents(folder)}
    if subset in folders:
        return (f"{subset}/*",)
    if subset == "default":
        return ("*",)
    known = [*repository.subsets, *sorted(folders - {""})]
    near = difflib.get_close_matches(subset, known, n=4, cutoff=0.4) or known[:12]
    raise UsageError(
        f"--subset {subset}: {repository.name} has no subset or folder of that name;"
        f" it has {', '.join(near) or 'no subsets'}"
    )


def _parents(folder: str) -> Iterator[str]:
    while folder := posixpath.dirname(folder):
        yield folder


def _inside(pattern: str, name: str) -> str:
    """Return a pattern of files inside a subset; it is relative to its folder or to the root."""
    folder = posixpath.dirname(pattern)
    return name if not folder or name.startswith(f"{folder}/") else f"{folder}/{name}"


def _matching(repository: Repository, patterns: tuple[str, ...]) -> Selection:
    files = tuple(p for p in sorted(repository.files) if any(fnmatch.fnmatch(p, q) for q in patterns))
    if not files:
        some = ", ".join(sorted(repository.files)[:5])
        raise UsageError(f"no file in {repository.name} matches {', '.join(patterns)}; it has {some} …")
    return Selection(repository=repository, patterns=patterns, files=files)


def select_model(repository: Repository) -> Selection:
    """Select a model's weights, as safetensors if available, and the files beside them."""
    at_top = [path for path in repository.files if "/" not in path]
    weights = next((p for p in WEIGHTS if fnmatch.filter(at_top, p)), None)
    if weights is None:
        raise UsageError(f"{repository.name} has no weights: no *.safetensors and no *.bin")
    if fnmatch.filter(at_top, "model*.safetensors"):
        weights = "model*.safetensors"  # without a second copy of the weights in the vendor's own format
    files = [p for p in at_top if any(fnmatch.fnmatch(p, q) for q in (weights, *BESIDE_WEIGHTS))]
    return Selection(repository=repository, patterns=tuple(files), files=tuple(sorted(files)))


def select_tokenizer(repository: Repository) -> Selection:
    """Select only the files of a tokenizer."""
    files = tokenizer_files.names_among(repository.files)
    if not tokenizer_files.names_among(files, tokenizer_files.DEFINING):
        raise UsageError(f"{repository.name} has no tokenizer: {tokenizer_files.none_of_them()}")
    return Selection(repository=repository, patterns=tuple(files), files=tuple(files))


def download(selection: Selection, where: Where, report: Callable[[int], None] = lambda done: None) -> Path:
    """Download the selected files that are missing. Return the folder that contains all of them.

    `report` is called from time to time with the bytes present. Raises NemolaunchError, with what to do; the
    next call resumes from what was downloaded.
    """
    from huggingface_hub import snapshot_download

    repository = selection.repository
    _check_space(selection, where)
    with (
        _plain_errors(repository.name, repository.kind, where.endpoint),
        _watched(_arriving(selection, where), report),
    ):
        folder = snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=repository.revision,
            allow_patterns=list(selection.patterns),
            cache_dir=where.cache_dir,
            local_dir=where.output_dir,
            endpoint=where.endpoint,
            max_workers=where.workers,
        )
    common = posixpath.commonpath([posixpath.dirname(path) for path in selection.files])
    return Path(folder, common)


def _cache(where: Where) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(where.cache_dir or HF_HUB_CACHE)


def _repository_folder(repository: Repository, where: Where) -> Path:
    name = f"{repository.kind}s--" + repository.name.replace("/", "--")
    return where.output_dir or _cache(where) / name


def _present(selection: Selection, where: Where) -> int:
    """Return the size of the selected files that are present."""
    folder = _repository_folder(selection.repository, where)
    if where.output_dir is None:
        folder = folder / "snapshots" / selection.repository.revision
    sizes = selection.repository.files
    return sum(sizes[path] for path in selection.files if (folder / path).exists())


def _check_space(selection: Selection, where: Where) -> None:
    folder = (where.output_dir or _cache(where)).absolute()
    while not folder.exists():
        folder = folder.parent
    needed, free = selection.total_bytes - _present(selection, where), shutil.disk_usage(folder).free
    if needed > free:
        raise NemolaunchError(
            f"{selection.repository.name}: {needed / 1e9:,.1f} GB have to be downloaded, {folder} has"
            f" {free / 1e9:,.1f} GB free; choose another disk with --output-dir, --cache-dir or HF_HUB_CACHE,"
            " or fewer files with --allow"
        )


def _arriving(selection: Selection, where: Where) -> Callable[[], int]:
    """Return a function that returns the bytes present: those of now, and what has arrived since."""
    folder = _repository_folder(selection.repository, where)
    growing = folder if where.output_dir else folder / "blobs"
    present, before = _present(selection, where), _bytes_below(growing)
    return lambda: present + _bytes_below(growing) - before


def _bytes_below(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:  # it has just been renamed
                continue
    return total


@contextmanager
def _watched(arrived: Callable[[], int], report: Callable[[int], None]) -> Iterator[None]:
    """Report the bytes present while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_EVERY_S):
            report(arrived())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _plain_errors(name: str, kind: str, endpoint: str | None) -> Iterator[None]:
    """Turn the libraries' exceptions into one sentence that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from requests import RequestException

    server = (endpoint or constants.ENDPOINT).rstrip("/")
    page = f"{server}/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        yield
    except HFValidationError as error:
        raise UsageError(f"{name!r} is not the name of a repository: {str(error).splitlines()[0]}") from None
    except GatedRepoError:
        raise NemolaunchError(
            f"{name} is gated: accept its terms on {page}, then set HF_TOKEN in the environment to a token of"
            " that account"
        ) from None
    except RevisionNotFoundError:
        raise UsageError(f"{name} has no revision of that name; see {page}/commits/main") from None
    except RepositoryNotFoundError:
        raise NemolaunchError(
            f"{server} has no {kind} {name}, or it is private: check the name, or set HF_TOKEN to a token"
            " that can read it"
        ) from None
    except LocalEntryNotFoundError as error:
        raise NemolaunchError(_unreachable(server, _no_connection(error.__cause__ or error))) from None
    except HfHubHTTPError as error:
        raise NemolaunchError(_refused(server, name, error)) from None
    except (RequestException, ConnectionError) as error:
        raise NemolaunchError(_unreachable(server, _no_connection(error))) from None
    except OSError as error:
        if error.errno is None:  # a transfer that ended early, detected by its size
            raise NemolaunchError(_unreachable(server, "the transfer ended early")) from None
        raise NemolaunchError(
            f"cannot store {name}: {error}. Free some space, or choose another disk with --output-dir or"
            " --cache-dir; the same command then resumes"
        ) from None


def _no_connection(error: BaseException) -> str:
    return f"no connection ({type(error).__name__})"


def _unreachable(server: str, reason: str) -> str:
    return (
        f"cannot download from {server}: {reason}. What was downloaded so far is kept: the same command"
        " resumes. On a machine without internet access, set a mirror with --endpoint or HF_ENDPOINT, set"
        " HTTPS_PROXY, or run the command elsewhere and copy the output"
    )


def _refused(server: str, name: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    advice = {
        401: "Set HF_TOKEN in the environment to a token that can read it",
        403: "Set HF_TOKEN in the environment to a token that can read it",
        429: "Too many requests: wait a while, or set HF_TOKEN, which raises the limit",
    }
    otherwise = "Try again later; the same command resumes the download"
    return f"{server} answered {status} for {name}. {advice.get(status or 0, otherwise)}"
