"""Tokenising a text of any length in bounded memory, to the same ids as in one go.

A text may be cut where it cannot be seen in the result: at a border of the tokenizer's own pre-tokens,
which are found from left to right and never look back. Each cut is checked on the text around it before it
is made.
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

# Characters encoded at once. The reference holds about 150 bytes a token while it works.
STRIDE = 1 << 19
# How far after a stride a place to cut is looked for, how many are tried, how much text around one is
# compared.
REACH = 1 << 18
TRIES = 32
AROUND = 512
# From so many neighbouring beginnings a border must be found to be one of the whole text.
BEGINNINGS = 8
# A line begins, or a word after a space: where pre-tokenisers of language models make a border.
PLACES = re.compile(r"(?<=\S\n)(?=[^\W\d_])|(?<=\w)(?= [^\W\d_])")


class LongTexts:
    """Encodes texts of more than `STRIDE` characters."""

    def __init__(self, spec: TokenizerSpec, encode: Encode) -> None:
        self.encode = encode
        self.tokenizer = spec.load()
        self.around: tuple[list[int], list[int]] | None = None
        with contextlib.suppress(ValueError):
            self.around = surrounding(self.tokenizer)

    def ids(self, text: str) -> Iterator[np.ndarray[Any, Any]]:
        """The ids of the text, special tokens included, in several arrays (uint32)."""
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
        """The first place found at or after `wanted` where the text can be cut; its end if there is none."""
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
        """Borders a little after `near` that are found wherever one begins to look before it.

        For text without words, as base64. Where a border depends on the beginning, as in a long run of digits taken by
        threes, the beginnings disagree.
        """
        found = set(range(near, near + AROUND // 2))
        for begin in range(near - AROUND, near - AROUND + BEGINNINGS):
            found &= {begin + at for at in self._borders(text[begin : near + AROUND])}
            if not found:
                break
        return sorted(found)[:BEGINNINGS]

    def invisible(self, text: str, at: int) -> bool:
        """Whether the text around `at` has a pre-token border there, and gives the same ids whole and cut."""
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
        """Where pre-tokens begin."""
        return {span[0] for _, span in self.tokenizer.pre_tokenizer.pre_tokenize_str(text)}
