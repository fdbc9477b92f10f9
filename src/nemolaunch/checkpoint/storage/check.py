"""One comparison of a conversion's result with its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """A comparison and its outcome.

    Attributes:
        name: what was compared: tensors, config, tokenizer, logits.
        compared: how many items were compared.
        differences: one line for each difference; empty if everything matches.
        skipped: why nothing could be compared.
        values: measured differences.
    """

    name: str
    compared: int
    differences: list[str] = field(default_factory=list)
    skipped: str | None = None
    values: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there are no differences."""
        return not self.differences

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.name}: not compared ({self.skipped})"
        if self.differences:
            return f"{self.name}: {len(self.differences)} of {self.compared:,} differ"
        measured = "".join(f", {name} {_figure(name, value)}" for name, value in self.values.items())
        return f"{self.name}: {self.compared:,} match{measured}"

    def as_json(self) -> dict[str, Any]:
        """Return the check as it appears in a report."""
        outcome = "skipped" if self.skipped else "passed" if self.passed else "failed"
        details = {"skipped": self.skipped, "differences": self.differences, **self.values}
        return {"outcome": outcome, "compared": self.compared, **{k: v for k, v in details.items() if v}}


def _figure(name: str, value: float) -> str:
    """Format a value: perplexities with enough digits to tell two apart, differences with their magnitude."""
    return f"{value:,.3f}" if name.startswith("perplexity") else f"{value:.3g}"
