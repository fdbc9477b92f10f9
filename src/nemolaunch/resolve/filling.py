"""A job whose open values are being filled in, each with its origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nemolaunch import arithmetic
from nemolaunch.catalogue import ModelSpec
from nemolaunch.facts import Facts
from nemolaunch.job import Job


class Filling:
    """A job whose values are being filled in.

    Attributes:
        job: the job so far.
        origins: field name → where its value comes from.
        computed: names of the fields that were filled in or changed.
        converted: fields that were given in another unit, and the values they had.
    """

    def __init__(self, job: Job, given: Mapping[str, str]) -> None:
        self.job = job
        self.origins: dict[str, str] = dict(given)
        self.computed: set[str] = set()
        self.converted: dict[str, Any] = {}

    def set(self, name: str, value: Any, origin: str) -> None:
        """Set a field."""
        self.job = self.job.with_values(**{name: value})
        self.origins[name] = origin
        self.computed.add(name)

    def replace(self, name: str, by: str, value: Any, origin: str) -> None:
        """Replace the field `name` by the field `by`, which expresses it in another unit."""
        self.converted[name] = self.job.get(name)
        self.job = self.job.with_values(**{name: None})
        self.origins.pop(name, None)
        self.set(by, value, origin)

    def default(self, name: str, value: Callable[[], Any], origin: str) -> None:
        """Set a field if it is not given."""
        if self.job.get(name) is None:
            self.set(name, value(), origin)


def parameters_of(job: Job, model: ModelSpec, facts: Facts) -> arithmetic.Parameters:
    """Return the number of parameters of a job's model, with the vocabulary of its tokenizer."""
    rows, _ = arithmetic.model_vocab_rows(
        model,
        facts.tokenizer.vocab_size if facts.tokenizer else None,
        max(1, job.parallelism.tensor_model_parallel_size),
    )
    return arithmetic.parameters(model.architecture, rows)
