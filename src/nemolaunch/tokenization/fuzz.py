"""Texts that reveal differences between tokenizer libraries. The same tokenizer gives the same texts."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RUN_LENGTHS = (1, 2, 3, 4, 5, 7, 8, 16, 31, 64, 127, 513, 4_000)
RUN_CHARACTERS = " \n\r\t  　aAzé中あ한ا1٣५!.-=_*'\"/\\🙂\u0301\u200d\x00"
EMOJI = (
    "👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇹🇼🇯🇵🇰🇷 1️⃣#️⃣ ☎️☎︎ ❤️‍🔥 🧑🏿‍🚀 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "a🙂b 🙂🙂🙂c🙂\n🙂 \n 🙂",
)
PHRASES = (
    "", " ", "  ", "\n", " \n", "\r\n", "\t\n \n", "a\r\nb\rc\n\nd", "x \n\n  y", "  leading", "trailing  ",
    "I'm you're HE'S they'LL we'd 'tis o'clock 'S'T'RE DON'T l’été ''s '' ' s", "don'tdon't'", "'ſ 'K",
    "1 12 123 1234 12345 1234567890 3.14 1,000,000 ١٢٣٤ 一二三 ½ ² Ⅷ 𝟘𝟙 v2.0.1-rc3",
    "naïve café Å Å ﬁ ﬀ ① ㍿ Ǆ ẞ İi ıI ΑΣς ǅ ﷺ e\u0301 \u0301e a\u0300\u0316b 각 각 नमस्ते ก็ ལྷ",
    "def f(x):\n    return {'a': [1, 2], \"b\": x**2}  # ok\n\tif x != y: pass\n\n\n",
    "https://example.org/a_b?q=%20c&d=1#e user@example.org C:\\dir\\file.txt <b>&amp;</b> $x^2$ ~`|",
    "zero\u200bwidth soft\u00adhyphen \u202ertl\u202c \ufeffbom \u2028line \u2029para \x85nel \x1c\x1d",
    "中文，没有空格。「引號」……日本語の文章、カタカナ。한국어 문장입니다. ภาษาไทย",
    "العربية עברית हिन्दी ქართული",
    "\U0010ffff \ufffe \uffff \ue000 \U000f0000 \U00020000\U0002f800 \U0001d400",
)  # fmt: skip


def texts(tokenizer: Tokenizer, added: list[str]) -> Iterator[str]:
    """Yield texts of all scripts, emoji, control characters, long runs, the vocabulary, and all added tokens."""
    yield from PHRASES
    yield from EMOJI
    for character in RUN_CHARACTERS:
        for length in RUN_LENGTHS:
            yield character * length
            yield f"x{character * length}y {character * length}"
    yield from _every_character()
    chance = random.Random(20)
    yield from _added(added, chance)
    yield from _vocabulary(tokenizer, chance)
    yield from _mixtures(chance)


def _every_character() -> Iterator[str]:
    """Yield each assigned code point once, in runs of its own kind and between letters and spaces."""
    run: list[str] = []
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cn", "Co", "Cs"):
            continue
        run.append(character)
        if len(run) == 61:
            yield "".join(run)
            yield " ".join(run[::3]) + "a".join(run[1::7])
            run = []
    yield "".join(run)


def _added(added: list[str], chance: random.Random) -> Iterator[str]:
    for token in added:
        yield from (
            token,
            token * 3,
            f"a{token}b",
            f"a {token} b",
            f"a  {token}  b",
            f"\n{token}\n",
            f"é{token}中",
        )
        yield from (token[:-1], token[1:], token.upper(), f"{token}{token[:-1]} {token[1:]}", f"1{token}'s")
        yield f"{token} {chance.choice(added)}{chance.choice(added)}\t{token}"


def _vocabulary(tokenizer: Tokenizer, chance: random.Random) -> Iterator[str]:
    """Yield sequences of decoded tokens, which merges must split and rejoin."""
    size = tokenizer.get_vocab_size()
    for _ in range(1500):
        ids = [chance.randrange(size) for _ in range(chance.choice((2, 3, 8, 40)))]
        glue = chance.choice(("", "", " ", "\n"))
        yield glue.join(tokenizer.decode([i], skip_special_tokens=False) for i in ids)


def _mixtures(chance: random.Random) -> Iterator[str]:
    ranges = ((0, 0x7F), (0x20, 0x7E), (0x80, 0x24F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF),
              (0x300, 0x36F),
              (0x2000, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF),
              (0x10000, 0x10FFFF))  # fmt: skip
    for _ in range(3000):
        kinds = chance.choices(ranges, k=chance.randint(1, 4))
        length = chance.choice((3, 12, 60, 300))
        yield "".join(
            chance.choice(" \n") if chance.random() < 0.12 else chr(chance.randint(*chance.choice(kinds)))
            for _ in range(length)
        )
