"""Tokenizers, corpora and a reference writer for the tests of tokenisation."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "tokens"
EOD, BOS = "<|end|>", "<|begin|>"


def variant(kind: str, folder: Path) -> Path:
    """Write a variant of the recorded tokenizer. Return its folder.

    small: unchanged, ids fit uint16. large: 70,000 tokens, so int32. bos: adds BOS to every text.
    prefix: adds a space before every text. nfc: normalises. merged: no pre-tokens, like Llama 2's.
    """
    shutil.copytree(GOLDEN / "tokenizer", folder, dirs_exist_ok=True)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if kind == "large":
        vocabulary = content["model"]["vocab"]
        vocabulary.update({f"<filler {i}>": i for i in range(len(vocabulary), 70_000)})
    elif kind == "bos":
        pieces = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        token = {BOS: {"id": BOS, "ids": [0], "tokens": [BOS]}}
        content["post_processor"] = {
            "type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": token,
        }  # fmt: skip
    elif kind == "prefix":
        content["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True
    elif kind == "nfc":
        content["normalizer"] = {"type": "NFC"}
    elif kind == "merged":
        content["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
    else:
        assert kind == "small"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def write_reference(prefix: Path, tokenizer: Path, documents: Iterable[str | Sequence[str]]) -> None:
    """Write `.bin/.idx` with megatron-core's builder, encoded like `preprocess_data.py --append-eod`."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    loaded = auto_tokenizer(str(tokenizer))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(len(loaded)))
    for document in documents:
        ids: list[int] = []
        lengths: list[int] = []
        for text in [document] if isinstance(document, str) else document:
            found = loaded(text).input_ids
            if found:
                ids.extend(found)
                lengths.append(len(found))
        if ids:
            ids.append(loaded.eos_token_id)
            lengths[-1] += 1
        builder.add_document(ids, lengths)
    builder.finalize(f"{prefix}.idx")


@functools.cache
def auto_tokenizer(folder: str) -> Any:
    """Return the tokenizer that Megatron-LM's tool loads."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def write_jsonl(path: Path, documents: Iterable[object], key: str = "text") -> Path:
    """Write one object per line, with the document under `key`. Return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            file.write(json.dumps({key: document}, ensure_ascii=False) + "\n")
    return path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pair(prefix: Path) -> tuple[bytes, bytes]:
    """Return the contents of `.bin` and `.idx`."""
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()
