"""Suggestions for misspelt names."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Words in Hugging Face ids that do not identify a model's architecture.
_IDLE_WORDS = r"\b(?:meta|instruct|base|chat|it|hf|v\d+(?:\.\d+)?|preview)\b"


def _key(name: str) -> str:
    """Normalise a name, so that `meta-llama/Llama-3.2-1B` equals `llama32_1b`, and `Qwen2.5-0.5B` `qwen25_500m`."""
    key = name.rsplit("/", 1)[-1].lower()
    key = re.sub(r"(?<![\d.])0\.(\d)b\b", r"\g<1>00m", key)
    key = re.sub(r"(?<=[-_ ])(\d+)\.(\d+)b\b", r"\1p\2b", key)
    key = re.sub(_IDLE_WORDS, "", key)
    return re.sub(r"[^a-z0-9]", "", key)


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` names of `known` that resemble `name`, the most similar first; possibly none."""
    import difflib

    by_key: dict[str, list[str]] = {}
    for candidate in known:
        by_key.setdefault(_key(candidate), []).append(candidate)
    keys = difflib.get_close_matches(_key(name), by_key, n=count, cutoff=0.6)
    return [candidate for key in keys for candidate in by_key[key]][:count]


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return ` Did you mean a, b or c?` with the nearest names, or an empty string."""
    near = nearest(name, known, count)
    if not near:
        return ""
    listed = near[0] if len(near) == 1 else ", ".join(near[:-1]) + " or " + near[-1]
    return f" Did you mean {listed}?"
