"""Meta's `tokenizer.model` of Llama 3, which is in tiktoken's form: a line for each token, in base64, with its rank.

The file has neither the pattern that cuts text nor the special tokens; Meta's code does, see `tokenizer.py` in
https://github.com/meta-llama/llama-models/tree/main/models/llama3.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUM_SPECIAL = 256
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
_NAMED = (
    BOS, EOS, "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>",
)  # fmt: skip
# The ids after those of the text, in this order
SPECIAL = (*_NAMED, *(f"<|reserved_special_token_{n}|>" for n in range(3, 3 + NUM_SPECIAL - len(_NAMED))))
ROLES = {"bos_token": BOS, "eos_token": EOS}
# Llama 4's file has the same form, but another pattern and other special tokens
LLAMA_4_TOKENS = 200_000


def is_tiktoken(path: Path) -> bool:
    """Return whether a file is in tiktoken's form, by its first line."""
    try:
        with open(path, "rb") as file:
            line = file.readline(4096)
    except OSError:
        return False
    return _token(line) is not None


def _token(line: bytes) -> tuple[bytes, int] | None:
    parts = line.split()
    if len(parts) != 2 or not parts[1].isdigit():
        return None
    try:
        return base64.b64decode(parts[0], validate=True), int(parts[1])
    except binascii.Error:
        return None


def ranks(path: Path) -> dict[bytes, int]:
    """Return token → rank of a file.

    Raises:
        NemolaunchError: it is damaged, or not Llama 3's.
    """
    found: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        token = _token(line)
        if token is None:
            raise NemolaunchError(
                f"{path.name} is damaged: line {number} is not a token in base64 and its rank"
            )
        found[token[0]] = token[1]
    if sorted(found.values()) != list(range(len(found))) or any(bytes([b]) not in found for b in range(256)):
        raise NemolaunchError(
            f"{path.name} is damaged: its {len(found):,} ranks are not 0, 1, 2, … with all 256 bytes among the tokens"
        )
    if len(found) >= LLAMA_4_TOKENS:
        raise NemolaunchError(
            f"{path.name} has {len(found):,} tokens, as Llama 4's, whose pattern and special tokens are not in it: "
            "use the tokenizer.json of the model's repository on the Hugging Face Hub"
        )
    return found


def convert(path: Path) -> tuple[Tokenizer, dict[str, str]]:
    """Return the tokenizer with Llama 3's special tokens, and role → token.

    As the tokenizer that Meta publishes on the Hugging Face Hub, it puts `<|begin_of_text|>` before a text.

    Raises:
        NemolaunchError: the file is damaged, or not Llama 3's.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    known = ranks(path)
    vocab = {as_text(token): rank for token, rank in known.items()}
    made = Tokenizer(models.BPE(vocab, _merges(known), fuse_unk=False, ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, len(vocab))]
            ),
        ]
    )
    return made, dict(ROLES)


def _merges(known: dict[bytes, int]) -> list[tuple[str, str]]:
    """Return the pairs that make a longer token: by rank, as tiktoken merges; pairs of one rank by their own ranks."""
    found = []
    for token, rank in known.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                found.append((rank, known[left], known[right], (as_text(left), as_text(right))))
    return [pair for *_, pair in sorted(found)]


def _byte_letters() -> dict[int, str]:
    """Return the letter that stands for each byte in GPT-2's byte-level form."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in shown}
    others = [byte for byte in range(256) if byte not in letters]
    return {**letters, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


_LETTERS = _byte_letters()


def as_text(token: bytes) -> str:
    """Return a token's bytes as the letters that the tokenizers library has for them."""
    return "".join(_LETTERS[byte] for byte in token)
