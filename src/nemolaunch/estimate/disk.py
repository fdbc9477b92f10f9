"""Disk that a run's checkpoints take."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.estimate.layout import MASTER_BYTES, MOMENT_BYTES, Layout

# Checkpoint metadata, context and tokenizer: measured at 2 to 20 MB, most of it the tokenizer.
EXTRA_BYTES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes on disk.

    Attributes:
        checkpoint: one checkpoint with training state.
        weights: of it, the weights.
        checkpoints: how many are there at once, at most.
        error: relative, either way.
    """

    checkpoint: int
    weights: int
    checkpoints: int
    error: float = 0.02

    @property
    def total(self) -> int:
        """Bytes of all checkpoints kept."""
        return self.checkpoint * self.checkpoints


def estimate_disk(parameters: int, layout: Layout, keep: int, saves: int) -> Disk:
    """Checkpoints of a model: weights in the training format, optimizer state in fp32.

    While a new checkpoint is written the oldest is still there: one more than is kept. -1 keeps all.
    """
    weights = parameters * layout.parameter_bytes
    master = MASTER_BYTES if layout.precision == "bf16" or layout.distributed_optimizer else 0
    state = parameters * (MOMENT_BYTES[layout.optimizer] + master)
    count = saves if keep < 0 else min(saves, keep + 1)
    return Disk(checkpoint=weights + state + EXTRA_BYTES, weights=weights, checkpoints=max(1, count))
