"""Masks: their number, their positions, what replaces the tokens, and that they are reproducible."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from nemolaunch.data.masking import Array, Masked, Masking

PAD, EOD, BOS, MASK, VOCABULARY = 2, 1, 0, 3, 8192
MASKING = Masking(
    probability=0.3,
    replacement="mask",
    mask_token=MASK,
    vocab_size=VOCABULARY,
    protected=(PAD, EOD, BOS),
    seed=1234,
)
TOKENS = np.random.default_rng(0).integers(10, VOCABULARY, 4096)
TOKENS[::97] = EOD
TOKENS[1::97] = BOS
TOKENS[-50:] = PAD


def by(replacement: str, **changes: float) -> Masking:
    return dataclasses.replace(MASKING, replacement=replacement, **changes)  # type: ignore[arg-type]


def runs(masked: Masked) -> list[int]:
    """Return the lengths of runs of predicted tokens."""
    return [len(list(group)) for predicted, group in itertools.groupby(masked.predicted) if predicted]


@pytest.mark.parametrize("replacement", ["mask", "bert", "span"])
def test_exactly_the_asked_share_is_predicted_and_nothing_protected(replacement: str) -> None:
    masked = by(replacement)(TOKENS, sample=5)
    protected = np.isin(TOKENS, (PAD, EOD, BOS))
    assert masked.predicted.sum() == round(0.3 * np.sum(~protected))
    assert not (masked.predicted & protected).any()
    assert (masked.inputs[~masked.predicted] == TOKENS[~masked.predicted]).all()


@pytest.mark.parametrize("replacement", ["mask", "span"])
def test_every_predicted_token_is_replaced_by_the_mask_token(replacement: str) -> None:
    masked = by(replacement)(TOKENS, sample=5)
    assert (masked.inputs[masked.predicted] == MASK).all()


def test_the_bert_policy_masks_80_changes_10_and_keeps_10_percent() -> None:
    seen: list[Array] = []
    original: list[Array] = []
    for sample in range(50):
        masked = by("bert")(TOKENS, sample=sample)
        seen.append(masked.inputs[masked.predicted])
        original.append(TOKENS[masked.predicted])
    inputs, tokens = np.concatenate(seen), np.concatenate(original)
    assert np.mean(inputs == MASK) == pytest.approx(0.8, abs=0.01)
    assert np.mean(inputs == tokens) == pytest.approx(0.1, abs=0.01)
    random = inputs[(inputs != MASK) & (inputs != tokens)]
    assert not np.isin(random, (PAD, EOD, BOS, MASK)).any()
    assert 0 <= random.min() < 50
    assert VOCABULARY - 50 < random.max() < VOCABULARY
    assert random.mean() == pytest.approx(VOCABULARY / 2, rel=0.05)


def test_spans_are_longer_than_chance_and_do_not_cross_documents() -> None:
    single, spans = runs(MASKING(TOKENS, sample=1)), runs(by("span", span_length=3.0)(TOKENS, sample=1))
    assert np.mean(single) == pytest.approx(1 / 0.7, rel=0.1)
    # runs that touch count as one here, as they do among single tokens
    assert 3.0 < np.mean(spans) < 3.0 / 0.7
    few = by("span", span_length=8.0, probability=0.02)
    text = np.full(4096, 9)
    lengths = [length for sample in range(200) for length in runs(few(text, sample=sample))]
    # a run beyond four times the mean is cut, and so is the last one of a sample
    assert 7.0 < np.mean(lengths) < 8.5
    assert max(lengths) >= 24


def test_a_sample_always_has_the_same_mask_and_each_sample_epoch_and_seed_its_own() -> None:
    def predicted(masking: Masking = MASKING, **which: int) -> bytes:
        return masking(TOKENS, **{"sample": 7, **which}).predicted.tobytes()  # type: ignore[arg-type]

    others = [
        predicted(sample=8),
        predicted(epoch=1),
        predicted(sample=2**40 + 7),
        predicted(validation=1),
        predicted(dataclasses.replace(MASKING, seed=1235)),
    ]
    assert predicted() == predicted()
    assert len({predicted(), *others}) == 6


def test_masks_are_the_same_in_every_version() -> None:
    """Recorded once: a run resumed with newer libraries has to get the same masks."""
    tokens = np.arange(100, 132)
    got = {name: np.flatnonzero(by(name)(tokens, sample=3, epoch=2).predicted) for name in ("mask", "span")}
    assert got["mask"].tolist() == RECORDED["mask"]
    assert got["span"].tolist() == RECORDED["span"]
    assert by("bert")(tokens, sample=3, epoch=2).inputs.tolist() == RECORDED["bert"]


# fmt: off
RECORDED: dict[str, list[int]] = {
    "mask": [1, 5, 6, 7, 15, 17, 21, 23, 24, 29],
    "span": [5, 6, 7, 15, 16, 17, 23, 24, 25, 29],
    "bert": [
        100, 3, 102, 103, 104, 3, 3, 3, 108, 109, 110, 111, 112, 113, 114, 3,
        116, 2305, 118, 119, 120, 3, 122, 3, 3, 125, 126, 127, 128, 3, 130, 131,
    ],
}
# fmt: on


def test_padding_is_never_predicted_whatever_id_it_has() -> None:
    is_text = np.arange(len(TOKENS)) < 100
    for replacement in ("mask", "span"):
        masked = by(replacement)(TOKENS, sample=1, is_text=is_text)
        assert not masked.predicted[100:].any()
        assert masked.predicted[:100].sum() == round(0.3 * np.sum(~np.isin(TOKENS[:100], (PAD, EOD, BOS))))


def test_short_samples() -> None:
    assert MASKING(np.array([9]), sample=0).predicted.tolist() == [True]
    assert MASKING(np.array([EOD, PAD]), sample=0).predicted.tolist() == [False, False]
    assert by("span", span_length=1.0)(np.array([9, 9, EOD]), sample=0).predicted.sum() == 1
    assert MASKING(np.array([], np.int64), sample=0).inputs.size == 0
