"""The page of the documentation lists every thread that has a test."""

from __future__ import annotations

from pathlib import Path

from field.page import page

PAGE = Path(__file__).parents[2] / "docs" / "field.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
    assert page().count("https://github.com/") > 10
