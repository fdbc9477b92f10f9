"""Inspect the `.bin/.idx` pairs of a job before a launch. Reads a few hundred bytes of each."""

from __future__ import annotations

import dataclasses
import os
import shlex
from array import array
from dataclasses import dataclass
from typing import Any

from nemolaunch.arithmetic import samples_per_epoch
from nemolaunch.data.blend import BlendSpec
from nemolaunch.data.data_digest import content_digest, manifest_beside
from nemolaunch.data.index import IndexFile
from nemolaunch.data.split import shares
from nemolaunch.data.text_files import NAMED_KINDS, PACKINGS
from nemolaunch.data.validation_sets import corpus_of
from nemolaunch.errors import NemolaunchError
from nemolaunch.system.path_hints import missing_part, nearest

TEXT_ENDINGS = (*NAMED_KINDS, *PACKINGS)
SAMPLE_BYTES = 1 << 14  # at the beginning, in the middle and at the end of a file
SAMPLED_FILES = 16
SAMPLED_DOCUMENTS = 32


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One `.bin/.idx` pair.

    Attributes:
        prefix: absolute path without `.bin`/`.idx`.
        source: index of the path it belongs to among those given.
        weight: blend weight of that path as given, or None.
        error: why it cannot be used, or None.
        instead: the path that was probably meant, if it does not exist.
        is_text: whether it is text, which can be streamed.
        split_tokens: tokens in the training, validation and test split.
        token_bytes: size of a token id on disk; `id_code`: its type code for the standard library's `array`.
        tokenizer: what was recorded when the data was tokenised: `name`, `vocab_size`, …
        max_token_id: the largest id of its tokenizer if recorded, else the largest id in a sample.
        sampled: whether `max_token_id` is from a sample.
        end_token: the id that ends documents, if recorded.
        digest: of the content (`nemolaunch.data.data_digest`); None if the pair cannot be used.
        last_tokens: the ids at the end of some documents, in a sample.
    """

    prefix: str
    source: int = 0
    weight: float | None = None
    error: str | None = None
    instead: str | None = None
    is_text: bool = False
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
    digest: str | None = None
    last_tokens: tuple[int, ...] = ()

    def samples(self, share: int, seq_length: int) -> int:
        """Return the samples per epoch of a share: 0 for training, 1 for validation, 2 for test."""
        return samples_per_epoch(self.split_tokens[share], max(1, seq_length))


def look_at_data(asked: BlendSpec, split: str) -> tuple[tuple[DataFile, ...], str]:
    """Return the files, and the split with shares set to 0 that are empty in one of the files.

    Megatron loops forever on an empty share (`GPTDataset._get_num_epochs`). Removing one share moves the bounds of
    the others, so this may take more than one pass.
    """
    found: list[DataFile] = []
    for place, (weight, path) in enumerate(asked.sources):
        files = _training_files(path, split)
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


def look_at_path(path: str, split: str) -> list[DataFile]:
    """Inspect all pairs of a path; if there are none, the only file says why in its `error`."""
    files = [look_at_prefix(prefix, split) for prefix in prefixes_of(path)] or [_nothing_there(path)]
    return _with_samples(files)


def _training_files(path: str, split: str) -> list[DataFile]:
    """Inspect the pairs of a path, without the held-out documents in a folder."""
    inside = pairs_in(path)
    wanted = [prefix for prefix in inside if not is_held_out(prefix)] if inside else prefixes_of(path)
    if inside and not wanted:
        only = f"{path} contains only documents held out for validation, such as {inside[0]}"
        return [DataFile(prefix=os.path.abspath(path), error=only)]
    return [look_at_prefix(prefix, split) for prefix in wanted] or [_nothing_there(path)]


def is_held_out(prefix: str) -> bool:
    """Return whether a pair has the documents that `nemolaunch tokenize` held out, going by name and manifest."""
    if corpus_of(os.path.basename(prefix)) is None:
        return False
    return _part((manifest_beside(prefix) or {}).get("split")) == "validation"


def _part(split: object) -> str | None:
    """Return which part of a corpus a file has: `train`, `validation` or `all`."""
    part = split.get("part") if isinstance(split, dict) else None
    return part if isinstance(part, str) else None


def as_number(word: str) -> float | None:
    """Return a word as a number; None if it is not one."""
    try:
        return float(word)
    except ValueError:
        return None


def prefixes_of(path: str) -> list[str]:
    """Return the absolute prefixes of all `.bin/.idx` pairs of a path: a folder, a prefix, or one of the files.

    Next to a prefix there may be a folder of the same name, in which Megatron keeps its indices.
    """
    inside = pairs_in(path)
    if inside:
        return inside
    absolute = os.path.abspath(path)
    stem = absolute[:-4] if absolute.endswith((".bin", ".idx")) else absolute
    for candidate in (stem, stem + "_text_document"):
        if os.path.exists(candidate + ".idx"):
            return [candidate]
    return []


def pairs_in(path: str) -> list[str]:
    """Return the absolute prefixes of all pairs in a folder; none if the path is not a folder with pairs.

    For a folder without pairs, its `preprocessed/` subfolder is used, where `preprocess_data.sh` writes.
    """
    absolute = os.path.abspath(path)
    return _pairs(absolute) or _pairs(os.path.join(absolute, "preprocessed"))


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
        why, is_text = _without_pairs(path)
        return DataFile(prefix=absolute, error=why, is_text=is_text)
    instead = nearest(path, lambda candidate: bool(prefixes_of(os.path.expanduser(candidate))))
    above = missing_part(path)
    where = f" ({above} does not exist)" if above else ""
    if os.path.exists(absolute + ".bin"):
        return DataFile(prefix=absolute, error=f"{path}.bin exists, but {path}.idx does not", instead=instead)
    if os.path.isfile(absolute) and path.lower().endswith(TEXT_ENDINGS):
        return DataFile(
            prefix=absolute, error=f"{path} is text, not a .bin/.idx pair: {_offer(path)}", is_text=True
        )
    there = (
        "a folder nor a .bin or .idx file" if os.path.exists(absolute) else "a folder nor a .bin/.idx pair"
    )
    return DataFile(prefix=absolute, error=f"{path} is neither {there}{where}", instead=instead)


def _offer(path: str) -> str:
    """Return how to train on text."""
    words = shlex.quote(path)
    return (
        f"tokenise it with `nemolaunch tokenize --hf-tokenizer TOKENIZER --input-dir {words} --output-dir DATA "
        "--data-prefix NAME`, or tokenise while training with --data-mode stream"
    )


def _without_pairs(path: str) -> tuple[str, bool]:
    """Return why a folder cannot be used, and whether it has text."""
    try:
        names = os.listdir(path)
    except OSError as error:
        return f"cannot read {path}: {error.strerror}", False
    texts = [name for name in names if name.endswith(TEXT_ENDINGS)]
    if texts:
        return f"{path} contains text ({texts[0]}) but no .bin/.idx pair: {_offer(path)}", True
    inner = [name for name in sorted(names) if _pairs(os.path.join(path, name))]
    if inner:
        return f"{path} contains no .bin/.idx pair, but {os.path.join(path, inner[0])} does", False
    return f"{path} contains no .bin/.idx pair", False


def look_at_prefix(prefix: str, split: str) -> DataFile:
    """Inspect one pair. Never raises: problems are reported in `error`."""
    try:
        with IndexFile(prefix) as index:
            record = manifest_beside(prefix)
            return DataFile(
                prefix=prefix,
                error=None if index.id_code else f"{prefix}.idx says that the data is floats, not token ids",
                num_sequences=index.num_sequences,
                num_documents=index.num_documents,
                num_tokens=index.num_tokens,
                split_tokens=_shares(index, split),
                token_bytes=index.token_bytes,
                id_code=index.id_code,
                tokenizer=record.get("tokenizer") if record else None,
                max_token_id=_recorded_id(record, "max_id"),
                end_token=_recorded_id(record, "eod_id"),
                digest=content_digest(index, prefix, record),
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
    """Return a token id recorded for the tokenizer of the data: its largest, or the one that ends documents."""
    made_by = (record or {}).get("tokenizer")
    found = made_by.get(name) if isinstance(made_by, dict) else None
    return found if isinstance(found, int) else None


def _with_samples(files: list[DataFile]) -> list[DataFile]:
    """Sample token ids from some of the files for which nothing is recorded."""
    unknown = [i for i, f in enumerate(files) if f.max_token_id is None and not f.error and f.num_tokens]
    for i in unknown[:: max(1, len(unknown) // SAMPLED_FILES)]:
        files[i] = _sampled(files[i])
    return files


def _sampled(file: DataFile) -> DataFile:
    """Return the file with the largest token id found in three places, and the last tokens of some documents."""
    ids: set[int] = set()
    last: set[int] = set()
    try:
        with open(file.prefix + ".bin", "rb") as data:
            for start in (0, file.num_tokens // 2, file.num_tokens):
                data.seek(max(0, start * file.token_bytes - SAMPLE_BYTES) if start else 0)
                raw = data.read(SAMPLE_BYTES)
                ids.update(array(file.id_code or "B", raw[: len(raw) - len(raw) % file.token_bytes]))
            for end in _document_ends(file):
                data.seek((end - 1) * file.token_bytes)
                last.update(array(file.id_code or "B", data.read(file.token_bytes)))
    except NemolaunchError as error:
        return dataclasses.replace(file, error=str(error))
    except OSError as error:
        return dataclasses.replace(file, error=f"cannot read {file.prefix}.bin: {error.strerror}")
    if ids and min(ids) < 0:
        return dataclasses.replace(
            file, error=f"{file.prefix}.bin contains negative token ids, such as {min(ids)}"
        )
    return dataclasses.replace(
        file, max_token_id=max(ids, default=None), sampled=True, last_tokens=tuple(sorted(last))
    )


def _document_ends(file: DataFile) -> list[int]:
    """Return the number of tokens up to the ends of some documents, spread over the file."""
    with IndexFile(file.prefix) as index:
        every = max(1, index.num_documents // SAMPLED_DOCUMENTS)
        ends = {index.document_end(number) for number in range(0, index.num_documents, every)}
    return sorted(end for end in ends if 0 < end <= file.num_tokens)


def split_bounds(split: str, num_sequences: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return start and end (exclusive) of the sequences for training, validation and test.

    Rounds like Megatron's blended dataset builder: normalised cumulative shares times the number of sequences,
    rounded half to even. A malformed split counts as all training.
    """
    bounds, start, acc = [], 0, 0.0
    for share in shares(split):
        acc += share
        end = round(acc * float(num_sequences))
        bounds.append((start, end))
        start = end
    return bounds[0], bounds[1], bounds[2]
