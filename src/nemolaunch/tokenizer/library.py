"""Tokenizers as transformers loads them: the one place where it is asked for one.

Code in a tokenizer's folder only runs with `--trust-remote-code`; transformers itself would ask on the terminal.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.run.folder import read_json
from nemolaunch.system.atomic_files import write_json
from nemolaunch.tokenizer import classes, completion, vocabulary
from nemolaunch.tokenizer.fingerprint import tokenizer_digest
from nemolaunch.tokenizer.vocabulary import Vocabulary

FLAG = "--trust-remote-code"
# Incremented when the meaning of cached content changes
CACHE_FORMAT = 2


def cache_folder() -> Path:
    """Return the folder where results about tokenizers are cached between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemolaunch"


def check_code(folder: Path, trusted: bool) -> None:
    """Raise UsageError if loading a tokenizer would run code of its folder and that is not allowed."""
    try:
        code = None if trusted else classes.code_of(folder)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} has no usable tokenizer: {error}") from None
    if code:
        raise UsageError(f"the tokenizer in {folder} {needs_code(code)}")


def needs_code(code: str) -> str:
    """Return, as a predicate, that a tokenizer cannot be loaded without its own code."""
    return (
        f"has code of its own ({code}), which transformers would have to run, and which may do anything on this "
        f"machine: read it, then set {FLAG}"
    )


def load(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer with transformers, the fast form if there is one.

    Raises:
        UsageError: the folder has no usable tokenizer, or needs code that is not trusted.
        NemolaunchError: the tokenizer cannot be loaded.
    """
    check_code(folder, trust_remote_code)
    with completion.loadable(folder) as usable:
        if not classes.is_told(usable) and not classes.own_code(usable):
            raise NemolaunchError(f"the tokenizer in {folder} cannot be used: {_name_a_class(folder)}")
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                usable, use_fast=True, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # its classes raise whatever their readers raise
            raise NemolaunchError(f"the tokenizer in {folder} cannot be used: {_reason(error)}") from error


def _name_a_class(folder: Path) -> str:
    likely = {"vocab.json": "GPT2Tokenizer", "vocab.txt": "BertTokenizer"}
    found = next((name for file, name in likely.items() if (folder / file).exists()), "LlamaTokenizer")
    return (
        'no file names its class: add a tokenizer_config.json with its "tokenizer_class", such as '
        f'{{"tokenizer_class": "{found}"}}'
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Protobuf Gencode/Runtime" in text:
        return "sentencepiece does not fit the installed protobuf: pip install 'sentencepiece<0.2.3'"
    return f"{type(error).__name__}: {text[:300]}"


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A tokenizer as transformers loads it.

    Attributes:
        vocabulary: its tokens, ids and roles.
        backend: the text of a `tokenizer.json` with everything that transformers adds to it.
        specials: its special tokens.
        split_special: whether they are treated as ordinary text inside text.
        refused: why it has no such text; the backend is then empty.
    """

    vocabulary: Vocabulary
    backend: str
    specials: tuple[str, ...]
    split_special: bool
    refused: str | None


def is_available() -> bool:
    """Return whether transformers is installed."""
    return importlib.util.find_spec("transformers") is not None


def vocabulary_of(folder: Path, *, trust_remote_code: bool = False) -> Vocabulary | None:
    """Return a tokenizer's tokens, ids and roles: the one answer for planning, tokenising and training.

    From its files alone if they are enough, else from transformers; None if that is not installed, or would have to
    run code that is not trusted.

    Raises:
        OSError, ValueError, KeyError, TypeError: its files are not usable.
        NemolaunchError: transformers cannot load it.
    """
    found = vocabulary.read(folder)
    if found is None and is_available() and (trust_remote_code or not classes.code_of(folder)):
        found = frozen(folder, trust_remote_code=trust_remote_code).vocabulary
    return found


def frozen(folder: Path, *, trust_remote_code: bool = False, cache: Path | None = None) -> Frozen:
    """Load a tokenizer in a process of its own, or return what is cached of it.

    Raises:
        UsageError: the folder has no usable tokenizer, or needs code that is not trusted.
        NemolaunchError: the tokenizer cannot be loaded.
    """
    check_code(folder, trust_remote_code)
    cached = _cached_at(folder, trust_remote_code, cache)
    found = None if trust_remote_code and classes.own_code(folder) else read_json(cached)
    if found is None:
        found = _load_apart(folder, trust_remote_code)
        with suppress(OSError):  # a home that cannot be written to: it is loaded again the next time
            write_json(cached, found)
    if found["refused"]:
        vocab = Vocabulary(found["ids"], found["roles"])
    else:
        vocab = vocabulary.of_backend(found["backend"], found["roles"])
    return Frozen(
        vocabulary=vocab,
        backend=found["backend"],
        specials=tuple(found["specials"]),
        split_special=found["split_special"],
        refused=found["refused"],
    )


def _cached_at(folder: Path, trust_remote_code: bool, cache: Path | None) -> Path:
    versions = f"{version('transformers')}-{version('tokenizers')}"
    trusted = "-trusted" if trust_remote_code else ""
    name = f"{tokenizer_digest(folder)[:32]}-{versions}{trusted}-{CACHE_FORMAT}.json"
    return (cache or cache_folder()) / "tokenizers" / name


def cached_backend(folder: Path) -> str | None:
    """Return the `backend` of a tokenizer that has been loaded before, without loading it; else None."""
    found = read_json(_cached_at(folder, False, None))
    return found["backend"] if found and not found["refused"] else None


def _load_apart(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """Run `freeze` in a process without torch, whose import takes longer than small inputs."""
    environment = os.environ | {
        "USE_TORCH": "0",
        "USE_TF": "0",
        "USE_FLAX": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), *([FLAG] if trust_remote_code else [])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise NemolaunchError(f"the tokenizer in {folder} cannot be used: {reason}")
    found = dict(json.loads(lines[-1]))
    if "error" in found:
        raise NemolaunchError(found["error"])
    return found


def freeze(tokenizer: Any) -> dict[str, Any]:
    """Complete special tokens as Megatron-LM does, and return plain values of a tokenizer."""
    named = {role: getattr(tokenizer, role) for role in vocabulary.ROLES}
    found = {"roles": {role: token for role, token in named.items() if token}, "refused": None, "backend": ""}
    if tokenizer.is_fast:
        tokenizer.add_special_tokens(stand_ins(tokenizer))
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        found["backend"] = backend.to_str()
    else:
        found["ids"] = tokenizer.get_vocab()
        found["refused"] = f"{type(tokenizer).__name__} has no fast version (it has no tokenizer.json form)"
    return {
        **found,
        "specials": tokenizer.all_special_tokens,
        "split_special": bool(tokenizer.split_special_tokens),
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


def _main(folder: str, *flags: str) -> None:
    try:
        found = freeze(load(Path(folder), trust_remote_code=FLAG in flags))
    except NemolaunchError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
