"""A digest of the content of a `.bin/.idx` pair, from a few kilobytes of it and its manifest.

A manifest has hashes of all the text a pair was made from. Without one, samples must tell contents apart: every
document's length shifts all later positions in the `.idx`, so other documents differ in nearly all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from nemolaunch.data.index import IndexFile
from nemolaunch.errors import NemolaunchError

# Few, because there may be thousands of files
WHOLE_BYTES = 16 << 10  # an .idx up to this size is read whole
PIECE_BYTES = 1 << 10
# Where pieces of a larger one begin, as shares of the file: of 20 bytes per document, 4 are lengths, which come first,
# 8 positions, then 8 numbers of sequences
IDX_PIECES = (0.0, 0.3, 0.4, 0.5, 0.8)
BIN_PIECES = (0.0, 0.5, 1.0)
# What a manifest says of the content. It also holds paths and versions, which may differ for the same content.
OF_CONTENT = ("dtype", "documents", "sequences", "tokens", "key", "split", "shard")
OF_SOURCE = ("bytes", "xxh3_128", "columns")


def changed_files(digests: Mapping[str, str]) -> list[str]:
    """Return the prefixes whose content no longer has this digest, or cannot be read."""
    return [prefix for prefix, digest in digests.items() if digest_now(prefix) != digest]


def digest_now(prefix: str) -> str | None:
    """Return the digest of a pair on the disk; None if it cannot be read."""
    try:
        with IndexFile(prefix) as index:
            return content_digest(index, prefix, manifest_beside(prefix))
    except NemolaunchError:
        return None


def manifest_beside(prefix: str) -> dict[str, Any] | None:
    """Return the manifest that `nemolaunch tokenize` writes next to the data, or None."""
    try:
        with open(prefix + ".manifest.json", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def content_digest(index: IndexFile, prefix: str, manifest: dict[str, Any] | None) -> str:
    """Return the digest of a pair. A copy elsewhere has the same.

    Raises:
        NemolaunchError: a file cannot be read.
    """
    sizes = f"{index.size_bytes} {index.bin_bytes}".encode()
    whole = index.size_bytes <= WHOLE_BYTES
    if whole:
        read = [index.read(0, WHOLE_BYTES)]
    else:
        read = [index.read(start, PIECE_BYTES) for start in _starts(IDX_PIECES, index.size_bytes)]
    read.append(_of_manifest(manifest or {}))
    if not (manifest and manifest.get("sources")):
        read += _of_bin(prefix, index.bin_bytes)
    return hashlib.sha256(b"\0".join([sizes, *read])).hexdigest()[:32]


def _starts(shares: tuple[float, ...], total: int) -> list[int]:
    """Return where the pieces of a file begin; the last one ends at its end."""
    return [int(share * max(0, total - PIECE_BYTES)) for share in shares]


def _of_bin(prefix: str, bin_bytes: int) -> list[bytes]:
    try:
        file = os.open(prefix + ".bin", os.O_RDONLY)
        try:
            return [os.pread(file, PIECE_BYTES, start) for start in _starts(BIN_PIECES, bin_bytes)]
        finally:
            os.close(file)
    except OSError as error:
        raise NemolaunchError(f"cannot read {prefix}.bin: {error.strerror}") from None


def _of_manifest(manifest: dict[str, Any]) -> bytes:
    made_by, sources = manifest.get("tokenizer"), manifest.get("sources")
    content = {
        "tokenizer": made_by.get("digest") if isinstance(made_by, dict) else None,
        "sources": [
            [source.get(name) for name in OF_SOURCE]
            for source in (sources if isinstance(sources, list) else ())
            if isinstance(source, dict)
        ],
        **{name: manifest.get(name) for name in OF_CONTENT},
    }
    return json.dumps(content, sort_keys=True).encode()
