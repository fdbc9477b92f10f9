"""Download of one file over HTTP, resumed wherever it was interrupted."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60
# Attempts in a row without progress; the pauses between them double.
TRIES = 6
PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
BUSY = (429, 500, 502, 503, 504)


class NotFound(NemolaunchError):
    """Error for a file that the server does not have."""


class _Again(Exception):
    """Interrupted transfer; `after_s` is how long the server asks to wait."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


def user_agent(contact: str | None) -> str:
    """Return the program's name and whom to contact, as Wikimedia asks of automatic clients."""
    about = f"corpus download; {contact}" if contact else "corpus download"
    return f"nemolaunch/{version('nemolaunch')} ({about}) python-requests/{version('requests')}"


class Client:
    """HTTP client for files of one server, one at a time.

    `say` is called with a message for each transfer that is retried.
    """

    def __init__(
        self,
        contact: str | None = None,
        pause_s: float = PAUSE_S,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        import requests

        self.session = requests.Session()
        self.session.headers.update({"User-Agent": user_agent(contact), "Accept-Encoding": "identity"})
        self.pause_s = pause_s
        self.say = say

    def text(self, url: str) -> str:
        """Return a small text file. Raises NotFound, or NemolaunchError if the server cannot be reached."""
        return b"".join(self._whole(url)).decode("utf-8", "replace")

    def _whole(self, url: str) -> list[bytes]:
        parts: list[bytes] = []

        def attempt() -> int:
            parts.clear()
            with self._get(url, {}) as response:
                parts.extend(response.iter_content(CHUNK_BYTES))
            return 0

        self._persist(url, attempt)
        return parts

    def stream(
        self, url: str, part: Path, on_size: Callable[[int], None] = lambda _: None
    ) -> Generator[bytes, None, None]:
        """Yield the file's bytes: first those that `part` already has, then the rest, which is appended.

        `on_size` is called with the total size as soon as it is known. Raises NotFound, NemolaunchError if
        the transfer cannot be finished, or OSError of the disk; what arrived so far is kept in `part`.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "a+b") as file:
            file.seek(0)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
            have = file.tell()
            tries = 0
            while True:
                try:
                    for chunk in self._rest(url, have, on_size):
                        file.write(chunk)
                        have += len(chunk)
                        tries = 0
                        yield chunk
                    break
                except _Again as error:
                    file.flush()
                    tries = self._wait(url, error, tries)
            file.flush()
            os.fsync(file.fileno())

    def _rest(self, url: str, have: int, on_size: Callable[[int], None]) -> Iterator[bytes]:
        """Yield the bytes of the file from offset `have` on, as far as one transfer gets."""
        with self._get(url, {"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status_code == 416:
                self._is_all(url, response.headers.get("Content-Range", ""), have)
                on_size(have)
                return
            skip = have if response.status_code == 200 else 0
            length = response.headers.get("Content-Length")
            total = have - skip + int(length) if length else None
            if total is not None:
                on_size(total)
            for chunk in _chunks(response):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                chunk, skip = chunk[skip:], 0
                have += len(chunk)
                yield chunk
            if total is not None and have < total:
                raise _Again("the connection ended early")

    def _is_all(self, url: str, content_range: str, have: int) -> None:
        total = content_range.rpartition("/")[2]
        if total.isdigit() and int(total) != have:
            raise NemolaunchError(
                f"{url} has {total} bytes, but {have} were downloaded: the file has changed; use --overwrite"
            )

    def _get(self, url: str, headers: dict[str, str]) -> Any:
        """Return the response before its body is read. Raises _Again, NotFound or NemolaunchError."""
        import requests

        try:
            response = self.session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise _Again(f"no connection ({type(error).__name__})") from None
        if response.status_code in BUSY:
            raise _Again(f"the server answers {response.status_code}", _retry_after(response))
        if response.status_code == 404:
            raise NotFound(f"{url} does not exist (404)")
        if response.status_code >= 400 and response.status_code != 416:
            raise NemolaunchError(f"{url}: the server answers {response.status_code} {response.reason}")
        return response

    def _persist(self, url: str, attempt: Callable[[], int]) -> None:
        import requests

        tries = 0
        while True:
            try:
                attempt()
                return
            except requests.RequestException as error:
                tries = self._wait(url, _Again(_broken(error)), tries)
            except _Again as error:
                tries = self._wait(url, error, tries)

    def _wait(self, url: str, error: _Again, tries: int) -> int:
        """Pause before another attempt. Raises NemolaunchError after the last one."""
        if tries + 1 >= TRIES:
            raise NemolaunchError(
                f"cannot download {url}: {error}, {TRIES} times in a row. What was downloaded so far is kept:"
                " the same command resumes. On a machine without internet access, set a mirror with --mirror, set"
                " HTTPS_PROXY, or run the command elsewhere and copy the output"
            )
        pause = min(max(self.pause_s * 2**tries, error.after_s), LONGEST_PAUSE_S)
        self.say(f"{error}; retrying in {pause:.0f} s")
        time.sleep(pause)
        return tries + 1


def _chunks(response: Any) -> Iterator[bytes]:
    import requests

    try:
        yield from response.iter_content(CHUNK_BYTES)
    except requests.RequestException as error:
        raise _Again(_broken(error)) from None


def _broken(error: Exception) -> str:
    return f"the connection broke ({type(error).__name__})"


def _retry_after(response: Any) -> float:
    """Return the seconds that the server asks to wait; the header has a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
