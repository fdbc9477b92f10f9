"""Masked language modelling: which tokens of a sample are predicted, and what the model sees in their place.

Masks are a function of the tokens, the sample's number, the epoch and the seed alone. So all ranks of a model
get the same masks without communicating, and a resumed run gets the masks it would have had without the
interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Of the tokens chosen by the `bert` policy: the mask token, a random one, and for the rest the token itself
# (Devlin et al. 2019, arXiv 1810.04805, section 3.1)
BERT_MASK_SHARE, BERT_RANDOM_SHARE = 0.8, 0.1
LONGEST_SPAN = 4  # times the mean: a geometric distribution has 1.8 % beyond it


@dataclass(frozen=True)
class Masked:
    """A masked sample: the ids the model sees, and True where it has to predict the original. Both [n]."""

    inputs: Array
    predicted: Array


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How samples are masked.

    Of n tokens that may be masked, exactly round(probability x n), and at least one, are masked.

    Attributes:
        replacement: `mask`: single tokens, each replaced by the mask token; `bert`: the same tokens, 80 % of
            them replaced by the mask token, 10 % by a random one, 10 % kept; `span`: runs of tokens, each
            replaced by as many mask tokens.
        span_length: mean length of a run, geometrically distributed (Joshi et al. 2020, arXiv 1907.10529).
        vocab_size: upper bound of random tokens.
        protected: ids that are never masked and never replace others: padding, beginning and end of a text,
            the mask token itself. Runs do not extend across them.
    """

    probability: float
    replacement: str
    mask_token: int
    vocab_size: int
    protected: tuple[int, ...]
    seed: int
    span_length: float = 3.0

    def __call__(
        self,
        tokens: Array,
        *,
        sample: int,
        epoch: int = 0,
        validation: bool = False,
        is_text: Array | None = None,
    ) -> Masked:
        """Mask one sample.

        Args:
            tokens: ids [n].
            sample: its number, unique in the run, or unique in an epoch if `epoch` is given.
            validation: draw from another sequence, so that no training sample has the same mask.
            is_text: False where the sample is padded, whatever the id there; [n].
        """
        tokens = np.asarray(tokens, np.int64)
        count = len(tokens)
        words = np.array([self.seed, int(validation), epoch, sample], np.uint64).view(np.uint32)
        # raw bits of Philox are the same in every version of numpy; its distributions may not be
        draws = np.random.Philox(np.random.SeedSequence(words.tolist())).random_raw(4 * count)
        order, length, policy, other = draws.reshape(4, count)
        free = ~np.isin(tokens, self._protected)
        if is_text is not None:
            free &= is_text
        spans = self.replacement == "span"
        chosen = self._chosen(self._covered(order, length, free) if spans else order, free)
        inputs = tokens.copy()
        if self.replacement == "bert":
            share = _unit(policy[chosen])
            kept = np.where(
                share < BERT_MASK_SHARE + BERT_RANDOM_SHARE, self._random(other[chosen]), tokens[chosen]
            )
            inputs[chosen] = np.where(share < BERT_MASK_SHARE, self.mask_token, kept)
        else:
            inputs[chosen] = self.mask_token
        predicted = np.zeros(count, bool)
        predicted[chosen] = True
        return Masked(inputs, predicted)

    @cached_property
    def _protected(self) -> Array:
        return np.unique(np.array([*self.protected, self.mask_token], np.int64))

    def _chosen(self, order: Array, free: Array) -> Array:
        """Return the positions of the tokens that come first in `order`; among equals, those further left."""
        candidates = np.flatnonzero(free)
        if not len(candidates):
            return candidates
        wanted = max(1, round(self.probability * len(candidates)))
        places = order[candidates]
        last = np.partition(places, wanted - 1)[wanted - 1]
        ties = np.flatnonzero(places == last)[: wanted - np.count_nonzero(places < last)]
        return candidates[np.sort(np.concatenate([np.flatnonzero(places < last), ties]))]

    def _covered(self, order: Array, length: Array, free: Array) -> Array:
        """Return the place in `order` of the first run that covers each token; every token starts one."""
        longest = max(1, round(LONGEST_SPAN * self.span_length))
        beyond = self._beyond(longest)
        reach = 1 + len(beyond) - np.searchsorted(beyond[::-1], _unit(length), side="right")
        barrier = np.maximum.accumulate(np.where(free, -1, np.arange(len(free))))
        room = np.arange(len(free)) - barrier  # tokens since the last one that must not be masked
        first = order.copy()
        for distance in range(1, min(longest, len(order))):
            covers = (reach[:-distance] > distance) & (room[distance:] > distance)
            earlier = np.minimum(first[distance:], order[:-distance])
            first[distance:] = np.where(covers, earlier, first[distance:])
        return first

    def _beyond(self, longest: int) -> Array:
        """Return the probability that a run is longer than 1, 2, … tokens; the same on every machine."""
        return np.cumprod(np.full(longest - 1, 1.0 - 1.0 / self.span_length))

    def _random(self, draws: Array) -> Array:
        """Return ids below `vocab_size` that are not protected, all equally likely."""
        barred = self._protected[self._protected < self.vocab_size]
        ids = (_unit(draws) * (self.vocab_size - len(barred))).astype(np.int64)
        return ids + np.searchsorted(barred - np.arange(len(barred)), ids, side="right")


def _unit(draws: Array) -> Array:
    """Return numbers in [0, 1) from 53 random bits each."""
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53
