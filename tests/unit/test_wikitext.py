"""Wikitext becomes the text that a reader sees, without boxes, tables and footnotes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemolaunch.download.wikitext import Namespaces, plain

CHINESE = Namespaces.of({6: "檔案", 14: "分類"})


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Foo''' is a [[Bar|bar]] and [[baz]]s.", "Foo is a bar and bazs."),
        ("{{Infobox|a=[[File:x.jpg]]|b={{c}}}}Text", "Text"),
        ("A [[File:a.jpg|thumb|A [[link]] caption]] b [[檔案:b.jpg|縮圖]] c", "A b c"),
        ("A[[Image:a.jpg]][[Category:X]][[分類:Y|z]][[en:Foo]][[zh-yue:富]]", "A"),
        (
            "See [[:Category:X|the category]] and [[Star Trek: Voyager]]",
            "See the category and Star Trek: Voyager",
        ),
        ("one<ref>two</ref> three<ref name=a/>.", "one three."),
        ("H<sub>2</sub>O &amp; x<br/>y", "H2O & xy"),
        ("a\n{| class=x\n| b || c\n|}\nd", "a\n\nd"),
        ("a <math>x^2</math> b <!-- c --> d __NOTOC__", "a b d"),
        ("[http://x.org label] [http://x.org]", "label"),
        ("<nowiki>[[a]]</nowiki>", "[[a]]"),
        ("* one\n* two\n# three\n; term\n: meaning", "one\ntwo\nthree\nterm\nmeaning"),
        ("'''X''' ({{lang|zh|y}}; {{z}}) is（{{y}}）w", "X isw"),
        ("a\n== H ==\nb", "a\n\nH\n\nb"),
        ("a\n== Empty ==\n=== Too ===\n== Full ==\nb\n== References ==\n<references/>", "a\n\nFull\n\nb"),
        ("a\n== H ==\n=== K ===\nb", "a\n\nH\n\nK\n\nb"),
        ("-{zh-hans:计算机; zh-hant:電腦}- -{T|zh:x}--{乾}- -{A|zh-tw:電腦;zh-cn:计算机}-", "计算机 乾 電腦"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("{{空}}[[Category:X]]\n== H ==\n", ""),
        ("", ""),
    ],
)
def test_what_a_reader_sees(wikitext: str, text: str) -> None:
    assert plain(wikitext, CHINESE) == text


@given(st.text(alphabet="[]{}|='<>/:-!*#\n abcé中refFile", max_size=200))
def test_broken_markup_never_fails(wikitext: str) -> None:
    text = plain(wikitext, CHINESE)
    assert text == text.strip()
    assert "\x02" not in text
