"""Secrets: which names and values look like one, and text without them."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO
from urllib.parse import unquote

HIDDEN = "***"
_WORDS = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|ACCESSKEY|PRIVATEKEY|PASSPHRASE", re.IGNORECASE)
_WHOLE = frozenset(
    ("PAT", "KEY", "PASS", "PWD", "PGPASS", "AUTH", "COOKIE", "JWT", "SAS", "BEARER", "WEBHOOK")
)
# TOKENIZERS_PARALLELISM and the like are not tokens
_NO_SECRET = re.compile(r"TOKENIZER|(NUM|MAX|MIN)_TOKENS|TOKENS_PER", re.IGNORECASE)
_SWITCH = re.compile(r"|0|1|true|false|yes|no|on|off", re.IGNORECASE)
_PLACE = re.compile(r"(.*_)?(FILE|PATH|DIR|SOCK|HOME|PWD|OLDPWD)", re.IGNORECASE)
# The forms in which GitHub, GitLab, Hugging Face, OpenAI, Slack, AWS, Google, npm and PyPI give out tokens; JWT; PEM
_TOKEN = re.compile(
    r"gh[pousr]_\w{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}|\bhf_[A-Za-z0-9]{20,}|\bsk-(?:proj-|ant-)?[A-Za-z0-9]{20,}|xox[abprs]-[\w-]{8,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{20,}|\bnpm_[A-Za-z0-9]{20,}|\bpypi-[\w-]{20,}"
    r"|https://hooks\.slack\.com/[\w/.-]+"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/@:]*):([^\s/@]+)@")
_DIGEST_NAME = re.compile(r"COMMIT|SHA|HASH|REV|DIGEST|CHECKSUM|UUID|VERSION|(^|_)ID$", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
CHANGES = (
    0.28  # of the kind of character, as a share: random text has about half, names of several words a fifth
)
SHORTEST = 6  # of a secret that is hidden wherever it stands


def name_is_secret(name: str, value: str) -> bool:
    """Return whether a variable looks like a secret by its name; a switch, a path or a count does not."""
    if _NO_SECRET.search(name):
        return False
    words = {word.upper() for word in re.split(r"[_\-.]", name)}
    if not (_WORDS.search(name.replace("_", "")) or words & _WHOLE):
        return False
    if _PLACE.fullmatch(name) and value.startswith(("/", "~", ".", "$")):
        return False
    return not (_SWITCH.fullmatch(value) and not re.search(r"PASS|PWD|SECRET", name, re.IGNORECASE))


def value_is_secret(value: str, name: str = "") -> bool:
    """Return whether a value looks like a secret: a token of a known form, a URL with a password, or random text.

    Paths, words, numbers, lists, host names and, under a name that says so, hashes are not random text.
    """
    if _TOKEN.search(value) or _URL_PASSWORD.search(value):
        return True
    if _DIGEST_NAME.search(name) or value.startswith(("/", "~", ".", "$")):
        return False
    pieces = (
        [value] if _BASE64.fullmatch(value) and value.count("/") <= 2 else re.split(r"[_\-.,:;/=+@ ]", value)
    )
    # a hash is common in the name of a file
    hashes = [piece for piece in pieces if len(pieces) > 1 and _HEX.fullmatch(piece)]
    return any(_is_random(piece.rstrip("=")) for piece in pieces if piece not in hashes)


def _is_random(text: str) -> bool:
    """Return whether text changes between digits, small and capital letters as often as random text does."""
    letters = text.replace("/", "").replace("+", "")
    if not _RUN.fullmatch(letters) or letters.isdigit():
        return False
    kinds = [0 if c.isdigit() else 1 if c.islower() else 2 for c in letters]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    return changes / len(letters) >= CHANGES and len(set(letters)) >= 8


def secrets_in(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the secrets in environment variables: passwords inside URLs, and values of variables named like one."""
    found = set()
    for name, value in environment.items():
        for match in _URL_PASSWORD.finditer(value):
            found |= {match[2], unquote(match[2])}
        if name_is_secret(name, value) and not value.startswith(("/", "~")):
            found.add(value)
    return frozenset(secret for secret in found if len(secret) >= SHORTEST)


def masked(text: str, secrets: frozenset[str] | None = None) -> str:
    """Return text without secrets: passwords in URLs, tokens of a known form, and those of the environment."""
    for secret in secrets_in(os.environ) if secrets is None else secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    return _TOKEN.sub(HIDDEN, text)


class MaskedStream:
    """A text stream that hides the secrets of the environment in what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._secrets = secrets_in(os.environ)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """Write text without secrets. Return the length of what was given."""
        self._stream.write(masked(text, self._secrets))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)


def mask_streams() -> None:
    """Hide secrets in everything that this process writes to stdout and stderr from now on."""
    sys.stdout, sys.stderr = MaskedStream(sys.stdout), MaskedStream(sys.stderr)


@contextmanager
def masked_streams() -> Iterator[None]:
    """Hide secrets in what is written to stdout and stderr during the block, if the environment has any."""
    before = sys.stdout, sys.stderr
    if secrets_in(os.environ):
        mask_streams()
    try:
        yield
    finally:
        if isinstance(sys.stdout, MaskedStream):
            sys.stdout, sys.stderr = before


def without_password(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that take the password out of MLflow's address, which MLflow prints; it reads all three."""
    address = environment.get("MLFLOW_TRACKING_URI", "")
    match = _URL_PASSWORD.search(address)
    if match is None:
        return {}
    return {
        "MLFLOW_TRACKING_URI": _URL_PASSWORD.sub("", address),
        "MLFLOW_TRACKING_USERNAME": environment.get("MLFLOW_TRACKING_USERNAME") or unquote(match[1]),
        "MLFLOW_TRACKING_PASSWORD": environment.get("MLFLOW_TRACKING_PASSWORD") or unquote(match[2]),
    }
