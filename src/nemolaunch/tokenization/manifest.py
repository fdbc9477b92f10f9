"""The record beside every `.bin/.idx`: its sources, tokenizer and size."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.json_files import read_json
from nemolaunch.tokenization.tokenizer import describe

if TYPE_CHECKING:
    from nemolaunch.tokenization.assemble import OutputProgress
    from nemolaunch.tokenization.request import TokenizeRequest

FORMAT = 1
PARTS = ("train", "validation")


def bin_of(prefix: Path) -> Path:
    """Return the `.bin` of a data set."""
    return prefix.with_name(prefix.name + ".bin")


def idx_of(prefix: Path) -> Path:
    """Return the `.idx` of a data set."""
    return prefix.with_name(prefix.name + ".idx")


def path_of(prefix: Path) -> Path:
    """Return the path of a data set's manifest."""
    return prefix.with_name(prefix.name + ".manifest.json")


def read(prefix: Path) -> dict[str, Any] | None:
    """Return the manifest of a data set, None if it has none. Raises NemolaunchError if it is not valid."""
    path = path_of(prefix)
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise NemolaunchError(f"{path} is not a manifest: {error}") from None
    if not isinstance(found, dict):
        raise NemolaunchError(f"{path} is not a manifest: it is not a JSON object")
    return found


# What a merge needs of each manifest
MERGED: dict[str, type | tuple[type, ...]] = {
    "tokenizer": dict,
    "bin_bytes": int,
    "max_token_id": (int, type(None)),
    "rejects": int,
    "blank_lines": int,
    "sources": list,
    "engine": str,
}


def read_for_merge(prefix: Path) -> dict[str, Any] | None:
    """Return the manifest of a data set that is merged. Raises NemolaunchError like `read`, and if it lacks a part."""
    found = read(prefix)
    if found is None:
        return None
    wrong = [name for name, kind in MERGED.items() if name not in found or not isinstance(found[name], kind)]
    if not wrong and not (
        "eod_id" in found["tokenizer"] and isinstance(found["tokenizer"].get("digest"), str)
    ):
        wrong = ["tokenizer"]
    if wrong or not isinstance(found.get("lost_bytes", 0), int):
        name = (wrong or ["lost_bytes"])[0]
        raise NemolaunchError(f"{path_of(prefix)} is damaged: {name} is missing, or is {found.get(name)!r}")
    return found


def identity_hash(identity: dict[str, Any]) -> str:
    """Return a hash of everything that determines the bytes of an output."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def make(
    request: TokenizeRequest, place: int, progress: OutputProgress, hashes: dict[str, str]
) -> dict[str, Any]:
    """Return the manifest of output number `place` of a finished run."""
    totals = progress.outputs[place]
    splits = len(request.prefixes) // len(request.keys)
    return {
        "format": FORMAT,
        "tokenizer": describe(request.spec),
        "dtype": request.spec.dtype,
        "documents": totals.documents,
        "sequences": totals.sequences,
        "tokens": totals.tokens,
        "bin_bytes": totals.bin_bytes,
        "max_token_id": totals.max_id if totals.tokens else None,
        "key": request.keys[place // splits],
        "split": {**request.split, "part": PARTS[place % splits] if splits > 1 else "all"},
        "shard": request.shard,
        "rejects": progress.rejects,
        "lost_bytes": progress.lost_bytes,
        "blank_lines": progress.blank,
        "sources": [
            {
                "path": path,
                "bytes": s.size,
                "xxh3_128": hashes[s.path],
                "columns": list(columns),
            }
            for path, s, columns in zip(request.paths, request.sources, request.columns, strict=True)
        ],
        "engine": request.engine,
        "versions": versions(),
        "identity": identity_hash(request.identity()),
    }


@dataclass(frozen=True)
class Merged:
    """The result of a merge: the prefix, and totals counted again after writing."""

    prefix: Path
    documents: int
    sequences: int
    tokens: int


def joined(records: list[dict[str, Any]], inputs: list[Path], merged: Merged) -> dict[str, Any]:
    """Return the manifest of several data sets merged into one."""
    highest = [r["max_token_id"] for r in records if r["max_token_id"] is not None]
    return {
        **records[0],
        "documents": merged.documents,
        "sequences": merged.sequences,
        "tokens": merged.tokens,
        "bin_bytes": sum(r["bin_bytes"] for r in records),
        "max_token_id": max(highest, default=None),
        "shard": None,
        "rejects": sum(r["rejects"] for r in records),
        "lost_bytes": sum(r.get("lost_bytes", 0) for r in records),
        "blank_lines": sum(r["blank_lines"] for r in records),
        "sources": [source for r in records for source in r["sources"]],
        "engine": ", ".join(sorted({r["engine"] for r in records})),
        "merged_from": [str(p.resolve()) for p in inputs],
        "versions": versions(),
        "identity": None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries involved."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in (
        "nemolaunch",
        "tokenizers",
        "transformers",
        "fastokens",
        "gigatoken",
        "numpy",
        "orjson",
        "pyarrow",
        "xxhash",
        "zstandard",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
