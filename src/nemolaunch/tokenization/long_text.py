"""Tokenising a text of any length in bounded memory, with the same ids as in one call.

A text may be cut where the result does not change: at a border of the tokenizer's own pre-tokens, which are
found from left to right and never look back. Each cut is checked on the text around it before it is made.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nemolaunch.tokenization.engines import Encode, surrounding

if TYPE_CHECKING:
    import numpy as np

    from nemolaunch.tokenization.tokenizer import TokenizerSpec

# Characters encoded at once. The reference holds about 150 bytes per token while it works.
STRIDE = 1 << 19
# How far after a stride to look for a cut, how many places to try, how much text around one to compare.
REACH = 1 << 18
TRIES = 32
AROUND = 512
# A border must be found from this many neighbouring starts to be one of the whole text.
BEGINNINGS = 8
# The start of a line, or of a word after a space: pre-tokenizers of language models have a border there.
PLACES = re.compile(r"(?<=\S\n)(?=[^\W\d_])|(?<=\w)(?= [^\W\d_])")


class LongTexts:
    """Encoder of texts of more than `STRIDE` characters."""

    def __init__(self, spec: TokenizerSpec, encode: Encode) -> None:
        self.encode = encode
        self.tokenizer = spec.load()
        self.around: tuple[list[int], list[int]] | None = None
        with contextlib.suppress(ValueError):
            self.around = surrounding(self.tokenizer)

    def ids(self, text: str) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the ids of a text, including special tokens, in several arrays (uint32)."""
        import numpy as np

        if self.around is None or self.tokenizer.pre_tokenizer is None:
            yield self.encode([text], True)[0]
            return
        before, after = self.around
        if before:
            yield np.array(before, np.uint32)
        start = 0
        while start < len(text):
            stop = self.next_cut(text, start + STRIDE)
            yield self.encode([text[start:stop]], False)[0]
            start = stop
        if after:
            yield np.array(after, np.uint32)

    def next_cut(self, text: str, wanted: int) -> int:
        """Return the first place at or after `wanted` where the text can be cut; its end if there is none."""
        while len(text) - wanted > REACH:
            places = PLACES.finditer(text, wanted, wanted + REACH)
            for match, _ in zip(places, range(TRIES), strict=False):
                if self.invisible(text, match.start()):
                    return match.start()
            for near in range(wanted + AROUND, wanted + REACH, REACH // TRIES):
                for at in self.common_borders(text, near):
                    if self.invisible(text, at):
                        return at
            wanted += REACH
        return len(text)

    def common_borders(self, text: str, near: int) -> list[int]:
        """Return borders just after `near` that are found from every start before it.

        For text without words, such as base64. Where borders depend on the start, as in a long run of digits
        split into threes, the starts disagree.
        """
        found = set(range(near, near + AROUND // 2))
        for begin in range(near - AROUND, near - AROUND + BEGINNINGS):
            found &= {begin + at for at in self._borders(text[begin : near + AROUND])}
            if not found:
                break
        return sorted(found)[:BEGINNINGS]

    def invisible(self, text: str, at: int) -> bool:
        """Return whether `at` is a border of pre-tokens, and the ids around it are the same whole and cut."""
        import numpy as np

        left, right = text[at - AROUND : at], text[at : at + AROUND]
        whole = left + right
        normalizer = self.tokenizer.normalizer
        if normalizer is not None and normalizer.normalize_str(whole) != whole:
            return False
        if len(left) not in self._borders(whole):
            return False
        ids, lengths = self.encode([whole, left, right], False)
        return bool(2 * lengths[0] == len(ids) and np.array_equal(ids[: lengths[0]], ids[lengths[0] :]))

    def _borders(self, text: str) -> set[int]:
        """Return where pre-tokens start."""
        return {span[0] for _, span in self.tokenizer.pre_tokenizer.pre_tokenize_str(text)}
