"""Rows to ids: the same ids that `nemolaunch tokenize` writes, each row ended by end-of-document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nemolaunch.errors import NemolaunchError
from nemolaunch.stream.order import Array
from nemolaunch.tokenization import engines
from nemolaunch.tokenization.encode import with_eod
from nemolaunch.tokenization.long_text import STRIDE, LongTexts
from nemolaunch.tokenization.output import BATCH_CHARS
from nemolaunch.tokenization.work import RECHECK_CHARS, RECHECK_EVERY

if TYPE_CHECKING:
    from nemolaunch.tokenization.tokenizer import TokenizerSpec


class EngineDiffers(NemolaunchError):
    """Error for a fast engine whose ids differ from the reference."""


class RowEncoder:
    """Encoder of rows with one engine of `nemolaunch.tokenization.engines`."""

    def __init__(self, spec: TokenizerSpec, engine: str) -> None:
        self._spec, self._engine = spec, engine
        self._encode = engines.load(engine, spec)
        self._reference = self._encode if engine == "hf" else engines.load("hf", spec)
        self._long: LongTexts | None = None
        self._seen = 0

    def __call__(self, rows: Sequence[Sequence[str]]) -> list[Array]:
        """Return the ids of each row, int32; none for a row of empty texts."""
        found: list[Array] = []
        batch: list[Sequence[str]] = []
        chars = 0
        for texts in rows:
            length = sum(map(len, texts))
            if batch and chars + length > BATCH_CHARS:
                found += self._batch(batch)
                batch, chars = [], 0
            if any(len(text) > STRIDE for text in texts):
                found += self._batch(batch)
                batch, chars = [], 0
                found.append(self._long_row(texts))
            else:
                batch.append(texts)
                chars += length
        return found + self._batch(batch)

    def _batch(self, rows: list[Sequence[str]]) -> list[Array]:
        if not rows:
            return []
        texts = [text for row in rows for text in row]
        ids, lengths = self._encode(texts, True)
        self._recheck(texts, ids, lengths)
        encoded = with_eod(ids, lengths, [len(row) for row in rows], self._spec.eod_id, "int32")
        ends = np.cumsum(encoded.per_document)
        lengths_so_far = np.concatenate(([0], np.cumsum(encoded.lengths, dtype=np.int64)))
        return np.split(encoded.tokens, lengths_so_far[ends][:-1])

    def _long_row(self, texts: Sequence[str]) -> Array:
        if self._long is None:
            self._long = LongTexts(self._spec, self._encode)
        parts = [ids.astype(np.int32) for text in texts for ids in self._long.ids(text)]
        return np.concatenate([*parts, np.array([self._spec.eod_id], np.int32)])

    def _recheck(self, texts: list[str], ids: Array, lengths: Array) -> None:
        """Compare one text in `RECHECK_EVERY` with the reference."""
        if self._engine == "hf":
            return
        first = -self._seen % RECHECK_EVERY
        self._seen += len(texts)
        for i in range(first, len(texts), RECHECK_EVERY):
            end = int(lengths[: i + 1].sum())
            mine = ids[end - int(lengths[i]) : end]
            if len(texts[i]) <= RECHECK_CHARS and not np.array_equal(
                self._reference([texts[i]], True)[0], mine
            ):
                raise EngineDiffers(
                    f"{self._engine} gives other ids than the reference for {texts[i][:80]!r}"
                )
