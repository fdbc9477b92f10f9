"""Files in object stores, by URL: `s3://`, `gs://` and `hf://`, through fsspec.

Endpoint and credentials are those of the libraries themselves (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, application default
credentials, `HF_TOKEN`, …); nothing of them is read or written here. Whatever a library raises becomes an OSError that
names the URL, so that callers treat a store as they treat a disk.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from nemolaunch.errors import UsageError

# What each kind of URL needs, and the extra that installs it
LIBRARIES = {
    "s3": ("s3fs", "cloud"),
    "gs": ("gcsfs", "cloud"),
    "hf": ("huggingface_hub", "tokens"),
}
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
BLOCK_BYTES = 8 << 20
# What tells two versions of an object apart, in the words of the stores
VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "mtime", "updated", "last_commit")


@dataclass(frozen=True)
class RemoteFile:
    """An object: its URL, its size in bytes, and a number that changes with its content."""

    url: str
    size: int
    version: int


def is_url(path: object) -> bool:
    """Return whether a path is a URL."""
    return _URL.match(str(path)) is not None


def join(url: str, *names: str) -> str:
    """Return the URL of something below another."""
    return "/".join([url.rstrip("/"), *names])


def all_absolute(paths: Iterable[str]) -> list[str]:
    """Return the absolute paths of perhaps a million local files; a URL is one already."""
    here = os.getcwd()
    return [
        path if is_url(path) else os.path.normpath(f"{here}/{path}" if path[:1] != "/" else path)
        for path in paths
    ]


def missing_library(url: str) -> str | None:
    """Return what must be installed, or changed, to use a URL; None if nothing."""
    found = _URL.match(url)
    protocol = found[1].lower() if found else ""
    if protocol not in LIBRARIES:
        return f"{url}: only {', '.join(name + '://' for name in LIBRARIES)} and paths on this machine are supported"
    library, extra = LIBRARIES[protocol]
    absent = [name for name in (library, "fsspec") if importlib.util.find_spec(name) is None]
    return (
        f"{url} needs {absent[0]}, which is not installed: pip install 'nemolaunch[{extra}]'"
        if absent
        else None
    )


def require_library(url: str) -> None:
    """Raise UsageError if a URL cannot be used with what is installed."""
    if (missing := missing_library(url)) is not None:
        raise UsageError(missing)


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, which fsspec keeps for each process, and the path in it."""
    require_library(url)
    import fsspec

    # Other processes write, too: a listing that was kept would hide what they have written
    options = {"use_listings_cache": False} if url.startswith(("s3:", "gs:")) else {}
    found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    return found


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", url) from None
    except PermissionError as error:
        raise PermissionError(errno.EACCES, f"access is denied: {_short(error)}", url) from None
    except OSError as error:
        raise OSError(error.errno or errno.EIO, _short(error), url) from None
    except Exception as error:  # botocore's and aiohttp's have no common base
        raise OSError(errno.EIO, f"{type(error).__name__}: {_short(error)}", url) from None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def stat(url: str) -> RemoteFile:
    """Return what a store knows about an object. Raises OSError."""
    fs, path = _file_system(url)
    with _plain_errors(url):
        info = fs.info(path)
        if info.get("type") == "directory":
            raise FileNotFoundError(path)
        return _described(url, info)


def _described(url: str, info: dict[str, Any]) -> RemoteFile:
    known = next((str(info[name]) for name in VERSIONS if info.get(name)), "")
    version = int.from_bytes(hashlib.blake2b(known.encode(), digest_size=7).digest(), "big")
    return RemoteFile(url, int(info["size"] or 0), version)


def find(url: str) -> list[RemoteFile]:
    """Return the objects that a URL stands for, by name: one object, those below a folder, or those a glob matches.

    None if there are none. Raises OSError.
    """
    fs, path = _file_system(url)
    with _plain_errors(url):
        if any(letter in path for letter in "*?["):
            found = fs.glob(path, detail=True)
        else:
            try:
                found = fs.find(path, detail=True)
            except FileNotFoundError:
                found = {}
        scheme = url.partition("://")[0]
        return [
            _described(f"{scheme}://{name}", info)
            for name, info in sorted(found.items())
            if info["type"] == "file" and not name.endswith("/")
        ]


def names_in(url: str) -> list[str]:
    """Return the names of what is directly in a folder; none if there is no such folder. Raises OSError."""
    fs, path = _file_system(url)
    with _plain_errors(url):
        try:
            found = fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(
            {str(name).rstrip("/").rpartition("/")[2] for name in found if name.rstrip("/") != path}
        )


def read_range(url: str, start: int, stop: int | None) -> bytes:
    """Return the bytes of an object in `[start, stop)`, fewer at its end. Raises OSError."""
    fs, path = _file_system(url)
    try:
        with _plain_errors(url):
            return bytes(fs.cat_file(path, start=start, end=stop))
    except OSError:
        if start and start >= stat(url).size:  # a range without a byte is an error of the store
            return b""
        raise


def read(url: str) -> bytes:
    """Return the content of an object. Raises OSError."""
    return read_range(url, 0, None)


def write(url: str, data: bytes) -> None:
    """Write an object, which appears complete or not at all. Raises OSError."""
    fs, path = _file_system(url)
    with _plain_errors(url):
        fs.pipe_file(path, data)


def put(source: str, url: str, report: Callable[[int], None] = lambda _: None) -> None:
    """Upload a file, a large one in several parts; it appears complete or not at all. Raises OSError.

    Args:
        report: takes the bytes that have arrived so far.
    """
    fs, path = _file_system(url)
    from fsspec.callbacks import Callback

    with _plain_errors(url):
        fs.put_file(source, path, callback=Callback(hooks={"report": lambda _, value: report(value)}))


def get(url: str, target: str) -> None:
    """Download an object to a path. Raises OSError."""
    fs, path = _file_system(url)
    with _plain_errors(url):
        fs.get_file(path, target)


def remove(url: str) -> None:
    """Remove an object, if there is one. Raises OSError."""
    fs, path = _file_system(url)
    with _plain_errors(url):
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            return


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a local file or an object for reading; of an object, blocks are fetched as they are read. Raises OSError."""
    if not is_url(path):
        with open(path, "rb") as file:
            yield file
        return
    fs, inner = _file_system(path)
    with _plain_errors(path):
        file = fs.open(inner, "rb", block_size=BLOCK_BYTES)
    with file:
        yield _Reader(file, path)  # type: ignore[misc]


class _Reader:
    """An open object, whose errors are OSErrors that name it; as much of a file as pyarrow and our readers need."""

    def __init__(self, file: Any, url: str) -> None:
        self._file, self._url = file, url

    def read(self, size: int = -1) -> bytes:
        with _plain_errors(self._url):
            return bytes(self._file.read(size))

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def size_of(path: str) -> int:
    """Return the size of a local file or an object in bytes. Raises OSError."""
    return stat(path).size if is_url(path) else os.stat(path).st_size
