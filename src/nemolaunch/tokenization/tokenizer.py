"""The tokenizer as Megatron-LM's tool sees it: as loaded by `transformers`, frozen into one JSON text.

`transformers` is imported in a separate process, without torch, and only for a tokenizer not seen before: the
result is cached by the hash of the tokenizer's files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.atomic_files import write_json
from nemolaunch.tokenization.index import dtype_for
from nemolaunch.tokenizer import files
from nemolaunch.tokenizer.fingerprint import file_digests, tokenizer_digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Incremented when the meaning of cached content changes.
CACHE_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """Everything tokenising needs to know about a tokenizer.

    Attributes:
        name: the folder, absolute, or the Hugging Face id.
        files: SHA-256 of each of its files.
        digest: one hash over them, see `nemolaunch.tokenizer.fingerprint`.
        backend: the text of a `tokenizer.json` with everything that `transformers` adds to it.
        split_special: whether special tokens inside text are treated as ordinary text.
        vocab_size: `len(tokenizer)`, which determines the dtype.
        max_id: the largest id it can produce.
        eod_id: appended to every document.
    """

    name: str
    files: dict[str, str]
    digest: str
    backend: str
    split_special: bool
    vocab_size: int
    max_id: int
    eod_token: str
    eod_id: int

    @property
    def dtype(self) -> str:
        """Return the `.bin`'s number type."""
        return dtype_for(self.vocab_size)

    def load(self) -> Tokenizer:
        """Load the reference tokenizer."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.backend)
        tokenizer.encode_special_tokens = self.split_special
        return tokenizer


def resolve(name: str, cache: Path, *, eod_token: str | None = None) -> TokenizerSpec:
    """Load the tokenizer in a folder or on the Hugging Face Hub.

    Raises UsageError if there is none, if it has no fast version, or if it names no end-of-document token.
    """
    folder = local_folder(name)
    if not files.defines_tokens(folder):
        raise UsageError(
            f"{folder} has no tokenizer: {files.none_of_them()}; set --hf-tokenizer to a folder with one of"
            " them or to a Hugging Face id"
        )
    digest = tokenizer_digest(folder)
    versions = f"{version('transformers')}-{version('tokenizers')}"
    cached = cache / "tokenizers" / f"{digest[:32]}-{versions}-{CACHE_FORMAT}.json"
    found = _read_cached(cached)
    if found is None:
        found = _resolve_apart(folder)
        write_json(cached, found)
    eod = eod_token or found["eos_token"]
    if eod is None or eod not in found["specials"]:
        known = ", ".join(list(found["specials"])[:8]) or "none"
        what = "names no end-of-text token" if eod is None else f"has no special token {eod!r}"
        raise UsageError(f"the tokenizer {name} {what}; set one with --eod-token (it has {known})")
    spec = TokenizerSpec(
        name=str(folder.resolve()) if Path(name).expanduser().is_dir() else name,
        files=file_digests(folder),
        digest=digest,
        backend=found["backend"],
        split_special=found["split_special"],
        vocab_size=found["vocab_size"],
        max_id=found["max_id"],
        eod_token=eod,
        eod_id=found["specials"][eod],
    )
    if spec.dtype == "uint16" and spec.max_id > 65_535:
        raise UsageError(
            f"the tokenizer {name} has {spec.vocab_size} tokens, which Megatron stores as uint16, but ids"
            f" up to {spec.max_id}: they would overflow. Its vocabulary must not have gaps"
        )
    return spec


def local_folder(name: str) -> Path:
    """Return the folder with a tokenizer's files, downloaded first if `name` is a Hugging Face id."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UsageError(f"--hf-tokenizer {name} is a file; use its folder instead: {folder.parent}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"--hf-tokenizer {name}: there is no such folder")
    try:
        return files.fetch(name)
    except NemolaunchError as error:
        raise UsageError(
            f"--hf-tokenizer {name} is neither a folder nor can it be fetched from the hub: {error}"
        ) from None


def _read_cached(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _resolve_apart(folder: Path) -> dict[str, Any]:
    """Run `resolve_here` in a process without torch, whose import takes longer than small inputs."""
    environment = os.environ | {
        "USE_TORCH": "0",
        "USE_TF": "0",
        "USE_FLAX": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise NemolaunchError(f"the tokenizer in {folder} cannot be used: {reason}")
    found = json.loads(lines[-1])
    if "refused" in found:
        raise UsageError(f"the tokenizer in {folder} cannot be used: {found['refused']}")
    return dict(found)


def resolve_here(folder: str) -> dict[str, Any]:
    """Load a tokenizer with `transformers`, complete special tokens as Megatron-LM does, and freeze it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    if not tokenizer.is_fast:
        return {"refused": f"{type(tokenizer).__name__} has no fast version (it has no tokenizer.json form)"}
    tokenizer.add_special_tokens(stand_ins(tokenizer))
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    ids = tokenizer.get_vocab().values()
    return {
        "backend": backend.to_str(),
        "split_special": bool(tokenizer.split_special_tokens),
        "vocab_size": len(tokenizer),
        "max_id": max(ids),
        "eos_token": tokenizer.eos_token,
        "specials": {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens},
    }


def stand_ins(tokenizer: Any) -> dict[str, Any]:
    """Return special tokens that replace missing ones.

    End of text and separator replace each other, and so do begin of text and classification. It is the rule
    of megatron-core's `HuggingFaceTokenizer`, and can change how those tokens match inside text.
    """
    named: dict[str, Any] = {}
    for one, other in (("eos_token", "sep_token"), ("bos_token", "cls_token")):
        first, second = getattr(tokenizer, one), getattr(tokenizer, other)
        if first and second is None:
            named[other] = first
        elif second and first is None:
            named[one] = second
    named["additional_special_tokens"] = []
    return named


def describe(spec: TokenizerSpec) -> dict[str, Any]:
    """Return what a manifest records about the tokenizer."""
    values = dataclasses.asdict(spec)
    del values["backend"]
    return {**values, "dtype": spec.dtype}


if __name__ == "__main__":
    print(json.dumps(resolve_here(sys.argv[1])))
