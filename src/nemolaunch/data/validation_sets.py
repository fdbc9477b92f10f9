"""Validation sets: named data that a run is evaluated on, and never trained on. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Shares of documents for training, validation and test, if --split is not given
HOLD_OUT = "998,1,1"
TRAIN_ON_ALL = "1,0,0"
# The set that --split takes from the training files, if it is given together with other sets
HELD_OUT = "held-out"
NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
# The names that `nemolaunch tokenize` gives to the documents it holds out
_HELD_OUT_FILE = re.compile(r"(?P<corpus>.+)_validation_.+_document", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """Data that is evaluated under a name at every validation, the same samples each time.

    Attributes:
        prefixes: its `.bin/.idx` pairs; together they are one set.
        tokens: in all of its files.
        num_samples: sequences in one epoch.
        num_batches: global batches that each validation evaluates.
        split: for the share that `--split` holds out, that split; else None: all documents.
        found: whether it was found beside the training data, rather than named by `--validation-data`.
    """

    name: str
    prefixes: tuple[str, ...]
    tokens: int
    num_samples: int
    num_batches: int
    split: str | None = None
    found: bool = False


def named_path(word: str) -> tuple[str, str]:
    """Return name and path of a word of `--validation-data`; without `NAME=`, the name is empty."""
    name, is_named, path = word.partition("=")
    return (name, path) if is_named else ("", word)


def corpus_of(file_name: str) -> str | None:
    """Return the corpus whose held-out documents a file has, going by its name without `.bin`; else None."""
    found = _HELD_OUT_FILE.fullmatch(file_name)
    return found["corpus"] if found else None


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """Return a valid name for a set like the wanted one, with a number if it is taken."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted, flags=re.ASCII).strip("-") or "validation"
    used, number, free = set(taken), 2, name
    while free in used:
        free, number = f"{name}-{number}", number + 1
    return free


def loss_key(name: str) -> str:
    """Return the name of the metric for a set's loss."""
    return f"val_loss/{name}"


def accuracy_key(name: str) -> str:
    """Return the name of the metric for a set's accuracy on masked tokens."""
    return f"val_masked_accuracy/{name}"


def set_names(keys: Iterable[str]) -> list[str]:
    """Return the names of the sets whose losses are among the names of metrics, in order."""
    prefix = loss_key("")
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def losses(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the losses by set in a row of the metrics file."""
    found = {name: row[loss_key(name)] for name in set_names(row)}
    return {name: value for name, value in found.items() if isinstance(value, float | int)}
