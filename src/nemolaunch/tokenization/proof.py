"""Proof that a fast engine gives the reference's ids for a tokenizer: tried once, then cached by its hash.

The trial runs in a separate process, so that a crash of the library is just a failed trial.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json
from nemolaunch.tokenization import engines, fuzz
from nemolaunch.tokenization.tokenizer import TokenizerSpec

TRIAL_BATCH = 512
# A trial takes seconds; an engine that does not finish in this time is not used.
TRIAL_TIMEOUT_S = 900


def choose(
    wanted: str, spec: TokenizerSpec, cache: Path, sample: Callable[[], list[str]], say: Callable[[str], None]
) -> str:
    """Return the engine to use: `wanted`, or with `auto` the first fast one, if proven identical; else `hf`.

    Args:
        sample: returns texts of the real input; only called if a trial is needed.
        say: called with the reason for a fallback.
    """
    if wanted == "hf":
        return "hf"
    for engine in engines.FAST if wanted == "auto" else (wanted,):
        if not engines.installed(engine):
            if wanted != "auto":
                say(f"{engine} is not installed (pip install {engine}); using the reference, hf")
            continue
        difference = verdict(engine, spec, cache, sample)
        if difference is None:
            return engine
        say(f"{engine} is not used for this tokenizer: {difference}")
    return "hf"


def verdict(engine: str, spec: TokenizerSpec, cache: Path, sample: Callable[[], list[str]]) -> str | None:
    """Return None if the engine is proven identical, else the reason why not; from the cache if possible."""
    path = cached_at(engine, spec, cache)
    try:
        return dict(read_json(path))["difference"]
    except (OSError, ValueError, KeyError):
        pass
    difference = _trial_apart(engine, spec, sample())
    remember(engine, spec, cache, difference)
    return difference


def cached_at(engine: str, spec: TokenizerSpec, cache: Path) -> Path:
    """Return where a verdict is cached: by the tokenizer as loaded, and the versions of both libraries."""
    key = hashlib.sha256(f"{spec.backend}{spec.split_special}".encode()).hexdigest()[:32]
    return cache / "engines" / f"{key}-{engine}-{version(engine)}-{version('tokenizers')}.json"


def remember(engine: str, spec: TokenizerSpec, cache: Path, difference: str | None) -> None:
    """Cache a verdict; None means identical."""
    with suppress(OSError):  # a home that cannot be written to: the engine is tried again the next time
        write_json(
            cached_at(engine, spec, cache),
            {"engine": engine, "digest": spec.digest, "difference": difference},
        )


def _trial_apart(engine: str, spec: TokenizerSpec, sample: list[str]) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.json"
        path.write_text(
            json.dumps({"spec": asdict(spec), "engine": engine, "sample": sample}), encoding="utf-8"
        )
        command = [sys.executable, "-m", __name__, str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=TRIAL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return f"the trial did not finish within {TRIAL_TIMEOUT_S} s"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the trial failed with exit code {done.returncode}: {last}"
    return dict(json.loads(lines[-1]))["difference"]


def trial(engine: str, spec: TokenizerSpec, sample: list[str]) -> str | None:
    """Compare fuzz texts and the sample, with and without special tokens. Return None if all ids match."""
    try:
        fast = engines.load(engine, spec)
    except Exception as error:
        return f"it cannot load the tokenizer ({_first_line(error)})"
    reference = engines.load("hf", spec)
    added = [token["content"] for token in json.loads(spec.backend)["added_tokens"]]
    for batch in _batches([*fuzz.texts(spec.load(), added), *sample]):
        for special in (True, False):
            difference = _compare(fast, reference, batch, special)
            if difference is not None:
                return difference
    return None


def _batches(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), TRIAL_BATCH):
        yield texts[start : start + TRIAL_BATCH]


def _compare(fast: engines.Encode, reference: engines.Encode, batch: list[str], special: bool) -> str | None:
    import numpy as np

    ids, lengths = reference(batch, special)
    try:
        other, other_lengths = fast(batch, special)
    except Exception as error:
        return f"it fails on a text ({_first_line(error)})"
    if np.array_equal(ids, other) and np.array_equal(lengths, other_lengths):
        return None
    for text in batch:
        if not np.array_equal(reference([text], special)[0], fast([text], special)[0]):
            return f"its ids differ for {text[:80]!r}"
    return "its ids differ between a batch of texts and each text alone"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _main(path: str) -> dict[str, Any]:
    asked = json.loads(Path(path).read_text(encoding="utf-8"))
    return {"difference": trial(asked["engine"], TokenizerSpec(**asked["spec"]), asked["sample"])}


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1])))
