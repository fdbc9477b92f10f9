"""Why a whole file of JSON Lines cannot be read, when one of its records could not: for the message."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from nemolaunch.data.packed import PackedReader
from nemolaunch.system import remote

HEAD_BYTES = 1 << 20
LINES = 100
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# A key whose values are shorter than this on average is more likely an id or a title
TEXT_CHARS = 20


def cause_of(path: str, kind: str, columns: tuple[str, ...]) -> str:
    """Return a sentence on what the whole file is instead of JSON Lines, and what to do; empty if it is."""
    head = head_of(path, kind)
    return form_of(head) or _keys(head, columns)


def head_of(path: str, kind: str) -> bytes:
    """Return the beginning of a file's JSON Lines, decompressed; empty if it has none or they cannot be read."""
    if kind in ("parquet", "text"):
        return b""
    try:
        with remote.opened(path) as file:
            if kind == "jsonl":
                return file.read(HEAD_BYTES)
            return PackedReader(file, kind, remote.size_of(path)).read()[:HEAD_BYTES]
    except (OSError, ImportError):
        return b""


def form_of(head: bytes) -> str:
    """Return a sentence on a form of the file that is not JSON Lines, and what to do; empty if there is none."""
    return _encoding(head) or _layout(head)


def _encoding(head: bytes) -> str:
    named = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    start = head[:200]
    if named is None and start.count(0) > len(start) // 3:
        named = "UTF-16"  # without a byte order mark
    if named is None:
        return ""
    return f"The file is {named}, not UTF-8: convert it with `iconv -f {named} -t UTF-8 OLD > NEW`"


def _layout(head: bytes) -> str:
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith("["):
        return (
            "The file is one JSON array, not JSON Lines: write one object per line with "
            "`jq -c '.[]' OLD > NEW.jsonl`"
        )
    if text.startswith("{") and not _is_json(text.partition("\n")[0]):
        value, end = _first_value(text)
        if isinstance(value, dict) and "\n" in text[:end]:
            return (
                "The file is pretty-printed JSON, each object on several lines: write one per line with "
                "`jq -c . OLD > NEW.jsonl`"
            )
        if isinstance(value, dict) and text[end:].lstrip(" ,").startswith("{"):
            return "Several objects are on one line: write one per line with `jq -c . OLD > NEW.jsonl`"
    return ""


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _first_value(text: str) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None, 0


def _keys(head: bytes, columns: tuple[str, ...]) -> str:
    records = list(_records(head))
    if not records:
        return ""
    lacking = [column for column in columns if not any(column in record for record in records)]
    if not lacking:
        return ""
    likely = likely_key(head, columns)
    return (
        f"The key `{likely}` holds text in all lines: use --text-key {likely}"
        if likely
        else _choice(_sizes(records))
    )


def likely_key(head: bytes, columns: tuple[str, ...]) -> str | None:
    """Return the key, such as `data.text`, that probably holds the text instead of these; None if none stands out."""
    sizes = _sizes(list(_records(head)))
    inner = [key for key in sizes if key.rpartition(".")[2] in columns]
    likely = inner or sorted(sizes, key=lambda key: -sizes[key])[:1]
    likely = [key for key in likely if key not in columns]
    if not likely or (not inner and len(sizes) > 1 and sizes[likely[0]] < TEXT_CHARS):
        return None
    return likely[0]


def _sizes(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean length of the texts under each key that holds one in all records."""
    texts = [_texts(record) for record in records]
    common = [key for key in texts[0] if all(key in found for found in texts)] if texts else []
    return {key: sum(len(found[key]) for found in texts) / len(texts) for key in common}


def _choice(sizes: dict[str, float]) -> str:
    if not sizes:
        return ""
    return f"Keys that hold text in all lines: {', '.join(sizes)}; name one with --text-key"


def _records(head: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of the first lines."""
    lines = head.splitlines()
    for line in (lines[:-1] if len(head) >= HEAD_BYTES else lines)[:LINES]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _texts(record: dict[str, Any], above: str = "", depth: int = 0) -> dict[str, str]:
    """Return the strings of a record by key, those inside other objects as `data.text`."""
    found: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, str):
            found[above + key] = value
        elif isinstance(value, dict) and depth < 4:
            found |= _texts(value, f"{above}{key}.", depth + 1)
    return found
