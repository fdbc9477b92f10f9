"""The setup that every worker of a run gets once."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.tokenization.tokenizer import TokenizerSpec


@dataclass(frozen=True)
class WorkerSetup:
    """Everything a worker needs to know.

    Attributes:
        columns: for each source, the column of each key.
        validation: share of documents, by the hash of their first text, that goes to the validation outputs.
        validation_sources: sources that go there completely; None without such outputs.
    """

    spec: TokenizerSpec
    engine: str
    folder: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    validation: float = 0.0
    validation_sources: frozenset[int] | None = None

    @property
    def splits(self) -> int:
        """Return the number of outputs of each key."""
        return 2 if self.validation or self.validation_sources is not None else 1

    @property
    def outputs(self) -> int:
        """Return the number of outputs."""
        return len(self.keys) * self.splits
