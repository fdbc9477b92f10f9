"""Blends: what is accepted, what weights mean, what a run reads of each source."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch import blend
from nemolaunch.errors import UsageError

LONG, SHORT = (
    blend.Source("long", tokens=9_000, documents=10),
    blend.Source("short", tokens=1_000, documents=100),
)


def test_words_and_yaml_say_the_same(tmp_path: Path) -> None:
    """Percent sum to 100, shares to 1; paths in a file are relative to it."""
    path = tmp_path / "blend.yaml"
    path.write_text("weights: tokens\nsources:\n  - {path: a, weight: 70}\n  - {path: b, weight: 30}\n")
    assert blend.parse("a:0.7,b:0.3").sources == (("a", 0.7), ("b", 0.3))
    assert blend.parse(str(path)).sources == ((f"{tmp_path}/a", 0.7), (f"{tmp_path}/b", 0.3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:0,b:1", "the weight of a is 0"),
        ("a:-0.5,b:1.5", "the weight of a is -0.5"),
        ("a:nan,b:1", "the weight of a is nan"),
        ("a:0.7,b:0.4", "the weights sum to 1.1"),
        ("a:0.5,a:0.5", "a stands in the blend twice"),
        ("a,b:1", "'a' is not PATH:WEIGHT"),
        ("a:half,b:0.5", "the weight of a is 'half'"),
        ("missing.yaml", "No such file"),
    ],
)
def test_what_is_no_share_of_a_whole_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        blend.parse(text)
    assert message in str(error.value)


def test_rows_become_tokens() -> None:
    """Equal numbers of documents of 900 and of 10 tokens are 900 : 10 in tokens, and back."""
    shares = blend.ledger(
        blend.Blend((("long", 0.5), ("short", 0.5)), "rows"), [LONG, SHORT], samples=91, seq_length=100
    )
    assert [round(s.by_tokens, 6) for s in shares] == [round(900 / 910, 6), round(10 / 910, 6)]
    assert [round(s.by_rows, 6) for s in shares] == [0.5, 0.5]
    assert [s.samples for s in shares] == [90, 1]
    assert [s.epochs for s in shares] == [1.0, 0.1]


def test_counts_sum_to_the_run_and_an_empty_source_is_refused() -> None:
    third = blend.Blend((("long", 1 / 3), ("short", 2 / 3)))
    for samples in range(50):
        assert (
            sum(s.samples for s in blend.ledger(third, [LONG, SHORT], samples=samples, seq_length=8))
            == samples
        )
    with pytest.raises(UsageError, match="holds no tokens"):
        blend.ledger(third, [LONG, blend.Source("short", 0, 0)], samples=1, seq_length=8)
