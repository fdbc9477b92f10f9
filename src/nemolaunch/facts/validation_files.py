"""Inspect the files of validation sets: those that are named, and those that lie beside the training data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass

from nemolaunch.data.blend import BlendSpec
from nemolaunch.data.validation_sets import corpus_of, free_name, named_path
from nemolaunch.facts.data_files import DataFile, is_held_out, look_at_path, pairs_in

ALL_DOCUMENTS = "0,1,0"


@dataclass(frozen=True, kw_only=True)
class ValidationFiles:
    """A validation set as it was found.

    Attributes:
        name: as given; empty if the word is not NAME=PATH.
        path: as given; for a set that was found, the folder of `--dataset-dir`.
        files: its `.bin/.idx` pairs, at least one; problems are in their `error`.
        found: whether it was found in a folder of `--dataset-dir`.
        trained_on: prefixes of the files that are training data, too.
    """

    name: str
    path: str
    files: tuple[DataFile, ...]
    found: bool = False
    trained_on: tuple[str, ...] = ()


def look_at_validation(words: tuple[str, ...], asked: BlendSpec) -> tuple[ValidationFiles, ...]:
    """Return the named sets in their order, then those found in folders of training data."""
    named = []
    for word in words:
        name, path = named_path(word)
        files = look_at_path(os.path.expanduser(path), ALL_DOCUMENTS)
        named.append(ValidationFiles(name=name, path=path, files=tuple(files)))
    return (*named, *_found(asked, named))


def compared(sets: tuple[ValidationFiles, ...], data: tuple[DataFile, ...]) -> tuple[ValidationFiles, ...]:
    """Return the sets with the prefixes of those of their files that are training data, too."""
    training = {_identity(file.prefix) for file in data} - {None}
    return tuple(
        dataclasses.replace(
            each, trained_on=tuple(f.prefix for f in each.files if _identity(f.prefix) in training)
        )
        for each in sets
    )


def _found(asked: BlendSpec, named: list[ValidationFiles]) -> Iterable[ValidationFiles]:
    """Return the held-out documents in folders of training data, one set for each corpus of each folder."""
    known = {_identity(file.prefix) for each in named for file in each.files}
    names = [each.name for each in named]
    for folder in dict.fromkeys(path for _, path in asked.sources):
        corpora: dict[str, list[str]] = {}
        for prefix in filter(is_held_out, pairs_in(folder)):
            if _identity(prefix) not in known:
                corpora.setdefault(corpus_of(os.path.basename(prefix)) or "", []).append(prefix)
        for corpus, prefixes in corpora.items():
            names.append(free_name(corpus, names))
            files = tuple(file for prefix in prefixes for file in look_at_path(prefix, ALL_DOCUMENTS))
            yield ValidationFiles(name=names[-1], path=folder, files=files, found=True)


def _identity(prefix: str) -> tuple[int, int] | None:
    """Return what is the same for two names of one file, links included; None if there is no file."""
    try:
        status = os.stat(prefix + ".bin")
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
