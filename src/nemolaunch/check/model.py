"""How the model differs from what the file that describes it says."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import warning
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Report what NeMo's model cannot represent, and trains otherwise."""
    for sentence in resolved.model.notes:
        yield warning("model-differs", f"{resolved.model.source}: {sentence}")
