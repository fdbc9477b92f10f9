"""The `.bin/.idx` pairs that a job names, as far as a launch has to know. A few hundred bytes of each are read."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from array import array
from dataclasses import dataclass
from typing import Any

from nemolaunch.data.blend import BlendSpec
from nemolaunch.data.index import IndexFile
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.path_hints import missing_part, nearest

TEXT_ENDINGS = (".jsonl", ".json", ".parquet", ".txt", ".gz", ".zst", ".bz2", ".xz")
SAMPLE_BYTES = 1 << 14  # at the beginning, in the middle and at the end of a file
SAMPLED_FILES = 16


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One `.bin/.idx` pair.

    Attributes:
        prefix: absolute path without `.bin`/`.idx`.
        source: the place of the path that it belongs to among those asked for.
        weight: blend weight of that path as given, or None.
        error: why it cannot be used, or None.
        instead: where nothing is there: the path that was probably meant.
        split_tokens: tokens in the training, validation and test share.
        token_bytes: size of one token id on disk; `id_code`: its type, for the standard library's `array`.
        tokenizer: what was recorded beside the data when it was made: `name`, `vocab_size`, …
        max_token_id: the largest id its tokenizer has, where recorded, else the largest of a sample.
        sampled: whether that is of a sample.
        end_token: the id that ends its documents, where recorded.
    """

    prefix: str
    source: int = 0
    weight: float | None = None
    error: str | None = None
    instead: str | None = None
    num_sequences: int = 0
    num_documents: int = 0
    num_tokens: int = 0
    split_tokens: tuple[int, int, int] = (0, 0, 0)
    token_bytes: int = 0
    id_code: str | None = None
    tokenizer: dict[str, Any] | None = None
    max_token_id: int | None = None
    sampled: bool = False
    end_token: int | None = None


def look_at_data(asked: BlendSpec, split: str) -> tuple[tuple[DataFile, ...], str]:
    """The files, and the split without shares that are empty in one of them.

    Megatron looks for the first token of an empty share for ever (`GPTDataset._get_num_epochs`). Leaving
    one out moves the others' bounds, so that a second look may be needed.
    """
    found: list[DataFile] = []
    for place, (weight, path) in enumerate(asked.sources):
        prefixes = prefixes_of(path)
        files = [look_at_prefix(prefix, split) for prefix in prefixes] or [_nothing_there(path)]
        found += [dataclasses.replace(file, source=place, weight=weight) for file in files]
    found = _with_samples(found)
    while True:
        shares = [part.strip() for part in split.split(",")]
        held_out = [i for i in range(1, min(len(shares), 3)) if as_number(shares[i])]
        read = [f for f in found if not f.error and f.num_tokens]
        empty = {i for i in held_out if any(f.split_tokens[i] == 0 for f in read)}
        if not empty:
            return tuple(found), split
        split = ",".join("0" if i in empty else share for i, share in enumerate(shares))
        found = [
            f if f.error else dataclasses.replace(f, split_tokens=_split_tokens(f.prefix, split))
            for f in found
        ]


def as_number(word: str) -> float | None:
    """The number a word is; None where it is none."""
    try:
        return float(word)
    except ValueError:
        return None


def prefixes_of(path: str) -> list[str]:
    """Absolute prefixes of all `.bin/.idx` pairs a path stands for: a folder, a prefix, or one of the files.

    A folder without pairs stands for its `preprocessed/` sub-folder, where `preprocess_data.sh` writes. Beside a
    prefix there may be a folder of the same name: Megatron keeps its indices in it.
    """
    absolute = os.path.abspath(path)
    for folder in (absolute, os.path.join(absolute, "preprocessed")):
        found = _pairs(folder)
        if found:
            return found
    stem = absolute[:-4] if absolute.endswith((".bin", ".idx")) else absolute
    for candidate in (stem, stem + "_text_document"):
        if os.path.exists(candidate + ".idx"):
            return [candidate]
    return []


def _pairs(folder: str) -> list[str]:
    try:
        names = set(os.listdir(folder))
    except OSError:
        return []
    stems = sorted(name[:-4] for name in names if name.endswith(".idx"))
    return [os.path.join(folder, stem) for stem in stems if stem + ".bin" in names]


def _nothing_there(path: str) -> DataFile:
    absolute = os.path.abspath(path)
    if os.path.isdir(absolute):
        return DataFile(prefix=absolute, error=_without_pairs(path))
    instead = nearest(path, lambda candidate: bool(prefixes_of(os.path.expanduser(candidate))))
    above = missing_part(path)
    where = f" ({above} does not exist)" if above else ""
    if os.path.exists(absolute + ".bin"):
        return DataFile(prefix=absolute, error=f"{path}.bin has no {path}.idx beside it", instead=instead)
    there = (
        "a folder nor a .bin or .idx file" if os.path.exists(absolute) else "a folder nor a .bin/.idx pair"
    )
    return DataFile(prefix=absolute, error=f"{path} is neither {there}{where}", instead=instead)


def _without_pairs(path: str) -> str:
    """Why a folder is of no use."""
    try:
        names = os.listdir(path)
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    texts = [name for name in names if name.endswith(TEXT_ENDINGS)]
    if texts:
        return f"{path} holds text ({texts[0]}), no .bin/.idx pair: `nemolaunch tokenize` makes them of it"
    inner = [name for name in sorted(names) if _pairs(os.path.join(path, name))]
    if inner:
        return f"{path} holds no .bin/.idx pair itself; {os.path.join(path, inner[0])} does"
    return f"{path} holds no .bin/.idx pair"


def look_at_prefix(prefix: str, split: str) -> DataFile:
    """One pair. Never raises: what is wrong with it is its `error`."""
    try:
        with IndexFile(prefix) as index:
            record = _record_beside(prefix)
            return DataFile(
                prefix=prefix,
                error=None if index.id_code else f"{prefix}.idx says that the data are floats, not token ids",
                num_sequences=index.num_sequences,
                num_documents=index.num_documents,
                num_tokens=index.num_tokens,
                split_tokens=_shares(index, split),
                token_bytes=index.token_bytes,
                id_code=index.id_code,
                tokenizer=record.get("tokenizer") if record else None,
                max_token_id=_recorded_id(record, "max_id"),
                end_token=_recorded_id(record, "eod_id"),
            )
    except NemolaunchError as error:
        return DataFile(prefix=prefix, error=str(error))


def _shares(index: IndexFile, split: str) -> tuple[int, int, int]:
    bounds = split_bounds(split, index.num_sequences)
    before = {point: index.tokens_before(point) for point in {point for pair in bounds for point in pair}}
    train, validation, test = (before[b] - before[a] for a, b in bounds)
    return train, validation, test


def _split_tokens(prefix: str, split: str) -> tuple[int, int, int]:
    try:
        with IndexFile(prefix) as index:
            return _shares(index, split)
    except NemolaunchError:
        return 0, 0, 0


def _recorded_id(record: dict[str, Any] | None, name: str) -> int | None:
    """A token id of the tokenizer that made the data: its largest, or the one that ends documents."""
    made_by = (record or {}).get("tokenizer")
    found = made_by.get(name) if isinstance(made_by, dict) else None
    return found if isinstance(found, int) else None


def _with_samples(files: list[DataFile]) -> list[DataFile]:
    """Token ids of some of the files that nothing is recorded of."""
    unknown = [i for i, f in enumerate(files) if f.max_token_id is None and not f.error and f.num_tokens]
    for i in unknown[:: max(1, len(unknown) // SAMPLED_FILES)]:
        files[i] = _sampled(files[i])
    return files


def _sampled(file: DataFile) -> DataFile:
    """The file with the largest token id of three of its pages."""
    ids: set[int] = set()
    try:
        with open(file.prefix + ".bin", "rb") as data:
            for start in (0, file.num_tokens // 2, file.num_tokens):
                data.seek(max(0, start * file.token_bytes - SAMPLE_BYTES) if start else 0)
                raw = data.read(SAMPLE_BYTES)
                ids.update(array(file.id_code or "B", raw[: len(raw) - len(raw) % file.token_bytes]))
    except OSError as error:
        return dataclasses.replace(file, error=f"cannot read {file.prefix}.bin: {error.strerror}")
    if ids and min(ids) < 0:
        return dataclasses.replace(
            file, error=f"{file.prefix}.bin holds negative token ids, such as {min(ids)}"
        )
    return dataclasses.replace(file, max_token_id=max(ids, default=None), sampled=True)


def _record_beside(prefix: str) -> dict[str, Any] | None:
    """The manifest that tokenising leaves beside the data: which tokenizer made it."""
    try:
        with open(prefix + ".manifest.json", encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def split_bounds(split: str, num_sequences: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last-but-one sequence of the training, validation and test share.

    The same rounding as Megatron's blended dataset builder: normalised cumulative shares times the
    number of sequences, rounded half to even. A malformed split counts as all training.
    """
    try:
        shares = [float(part) for part in split.split(",")]
    except ValueError:
        shares = [1.0]
    shares = [*shares, 0.0, 0.0][:3]
    if not math.isfinite(sum(shares)) or min(shares) < 0:
        shares = [1.0, 0.0, 0.0]
    total = sum(shares) or 1.0
    bounds, start, acc = [], 0, 0.0
    for share in shares:
        acc += share / total
        end = round(acc * float(num_sequences))
        bounds.append((start, end))
        start = end
    return bounds[0], bounds[1], bounds[2]
