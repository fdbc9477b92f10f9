"""Documents to score, read from a Megatron prefix, text files or a Hugging Face dataset."""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.facts.data_files import TEXT_ENDINGS
from nemolaunch.stream.datasets import outer_column
from nemolaunch.system.installation import how_to_install
from nemolaunch.tokenization.index import read_index
from nemolaunch.tokenization.pieces import cut
from nemolaunch.tokenization.records import records, value_of
from nemolaunch.tokenization.sources import find

PIECE_BYTES = 16 << 20
# NAME or OWNER/NAME on the Hub, optionally with a configuration
DATASET = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:.+)?")


@dataclass(frozen=True)
class ScoredText:
    """The token ids of one document, without its end token, and its length in UTF-8 bytes."""

    ids: list[int]
    num_bytes: int


def documents(
    data: str, tokenizer: Any, *, text_key: str = "text", split: str | None = None
) -> Iterator[ScoredText]:
    """Read the documents of PREFIX.bin/.idx, of a file or folder of JSONL, parquet or text, or of a dataset.

    Raises:
        UsageError: the data does not exist, or a record has no text under `text_key`.
    """
    if Path(data + ".idx").is_file() or data.endswith((".idx", ".bin")):
        return _indexed(data.removesuffix(".idx").removesuffix(".bin"), tokenizer)
    path = Path(data).expanduser()
    if path.is_dir() and (inside := sorted(path.rglob("*.idx"))):
        return _indexed(_only_prefix(data, inside), tokenizer)
    saved = (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()
    mistyped = data.endswith((*TEXT_ENDINGS, ".csv")) or not DATASET.fullmatch(data)
    if not path.exists() and mistyped:
        raise UsageError(f"--data {data}: no such file, folder or PREFIX of .idx")
    texts = _files(data, text_key) if path.exists() and not saved else _dataset(data, text_key, split)
    return _tokenised(texts, tokenizer)


def _only_prefix(data: str, indexes: list[Path]) -> str:
    """Return the prefix of the only tokenised dataset in a folder; other files in it are not text."""
    prefixes = [str(index.with_suffix("")) for index in indexes]
    if len(prefixes) > 1:
        more = ", …" if len(prefixes) > 4 else ""
        raise UsageError(
            f"--data {data} contains {len(prefixes)} tokenised datasets; choose one: {', '.join(prefixes[:4])}{more}"
        )
    return prefixes[0]


def _tokenised(texts: Iterator[str], tokenizer: Any) -> Iterator[ScoredText]:
    for text in texts:
        yield ScoredText(tokenizer(text, add_special_tokens=False)["input_ids"], len(text.encode()))


def _indexed(prefix: str, tokenizer: Any) -> Iterator[ScoredText]:
    """Yield the documents of a `.bin`; their length in bytes is that of the decoded text."""
    import numpy as np

    index = read_index(Path(prefix + ".idx"))
    try:
        tokens = np.memmap(prefix + ".bin", np.dtype(index.header.dtype), "r")
    except (OSError, ValueError) as error:
        raise NemolaunchError(f"--data {prefix}: cannot read {prefix}.bin: {error}") from None
    ends = np.cumsum(index.lengths, dtype=np.int64)
    known = len(tokenizer)
    for first, stop in zip(index.documents[:-1], index.documents[1:], strict=True):
        if stop == first:
            continue
        ids = tokens[ends[first] - index.lengths[first] : ends[stop - 1]].tolist()
        if max(ids) >= known:
            raise UsageError(
                f"--data {prefix} contains token {max(ids)}, but the model's tokenizer has only {known} tokens: the "
                "data was tokenised for another model"
            )
        if ids[-1] == tokenizer.eos_token_id:
            ids.pop()
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        yield ScoredText(ids, len(text.encode()))


def _files(data: str, text_key: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="nemolaunch-eval-") as spool:
        try:
            sources = find([data])
        except UsageError as error:
            raise UsageError(str(error).replace("--input-dir", "--data")) from None
        before: Counter[int] = Counter()
        for piece in cut(sources, PIECE_BYTES, Path(spool), 0):
            found = records(piece, [(text_key,)] * len(piece.paths), _nothing)
            for (value,) in found:
                if found.rejects:
                    break
                yield "".join(value)
            if found.rejects:
                reject = found.rejects[0]
                place = piece.place_of(reject.file)
                where = f"{sources[place].path}, record {before[place] + reject.line}"
                hint = "; set --text-key to the key of the text" if reject.reason.startswith("no key") else ""
                raise UsageError(f"--data {where}: {reject.reason}{hint}")
            before[piece.source] += found.count
            if piece.spooled:
                Path(piece.paths[0]).unlink(missing_ok=True)


def _nothing() -> None:
    """Do nothing between records."""


def _dataset(data: str, text_key: str, split: str | None) -> Iterator[str]:
    """Yield the texts of a dataset on disk or on the Hub; `NAME:CONFIG` selects a configuration."""
    try:
        import datasets
    except ImportError:
        raise NemolaunchError(f"reading datasets requires `datasets`: {how_to_install('train')}") from None
    name, _, configuration = data.partition(":")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs every retry
    try:
        loaded: Any
        if Path(data).expanduser().is_dir():
            loaded = datasets.load_from_disk(str(Path(data).expanduser()))
            loaded = loaded[split] if split else loaded
        else:
            loaded = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"--data {data} is not a PREFIX of .idx, a file or a folder, and cannot be loaded as a dataset: "
            f"{type(error).__name__}: {reason}"
        ) from None
    if isinstance(loaded, dict):
        raise UsageError(f"--data {data} has the splits {', '.join(loaded)}; choose one with --split")
    if outer_column(text_key, loaded.column_names) is None:
        raise UsageError(
            f"--data {data} has no column {text_key!r}, only {', '.join(loaded.column_names)}; "
            "set --text-key to the column of the text"
        )
    for number, row in enumerate(loaded, 1):
        try:
            yield "".join(value_of(row, text_key))
        except ValueError as error:
            raise UsageError(f"--data {data}, row {number}: {error}; set --text-key to the text") from None
