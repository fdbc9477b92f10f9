"""The tokenizer as Megatron-LM's tool sees it: as loaded by `transformers`, frozen into one JSON text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.tokenization.index import dtype_for
from nemolaunch.tokenizer import completion, files, library
from nemolaunch.tokenizer.fingerprint import file_digests, tokenizer_digest
from nemolaunch.tokenizer.vocabulary import end_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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


def resolve(
    name: str,
    cache: Path,
    *,
    eod_token: str | None = None,
    trust_remote_code: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> TokenizerSpec:
    """Load the tokenizer in a folder or on the Hugging Face Hub.

    Args:
        cache: folder in which what is known of the tokenizer is kept.
        eod_token: ends each document; by default the token that ends texts.
        trust_remote_code: run code in the tokenizer's folder, if it has any.
        tell: takes a remark about a tokenizer that transformers cannot load as it is.

    Raises UsageError if there is none, if it has no fast version, if it needs code that is not trusted, or if it
    names no end-of-document token.
    """
    folder = local_folder(name)
    if not files.defines_tokens(folder):
        raise UsageError(
            f"{folder} has no tokenizer: {files.none_of_them()}; set --hf-tokenizer to a folder with one of"
            " them or to a Hugging Face id"
        )
    found = library.frozen(folder, trust_remote_code=trust_remote_code, cache=cache)
    if found.refused:
        raise UsageError(f"the tokenizer in {folder} cannot be used: {found.refused}")
    if completed := completion.reason(folder):
        tell(f"{name}: transformers cannot load this tokenizer as it is ({completed}); it is converted first")
    known = found.vocabulary
    eod = eod_token or end_token(known.roles)
    if eod is None or eod not in found.specials:
        some = ", ".join(found.specials[:8]) or "none"
        what = "names no end-of-text token" if eod is None else f"has no special token {eod!r}"
        raise UsageError(f"the tokenizer {name} {what}; set one with --eod-token (it has {some})")
    spec = TokenizerSpec(
        name=str(folder.resolve()) if Path(name).expanduser().is_dir() else name,
        files=file_digests(folder),
        digest=tokenizer_digest(folder),
        backend=found.backend,
        split_special=found.split_special,
        vocab_size=known.size,
        max_id=known.max_id,
        eod_token=eod,
        eod_id=known.ids[eod],
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


def describe(spec: TokenizerSpec) -> dict[str, Any]:
    """Return what a manifest records about the tokenizer."""
    values = dataclasses.asdict(spec)
    del values["backend"]
    return {**values, "dtype": spec.dtype}
