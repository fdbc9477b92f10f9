"""Disk space of a run's checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from nemolaunch.estimate.layout import MASTER_BYTES, MOMENT_BYTES, Layout

# Checkpoint metadata, context and tokenizer: measured 2 to 20 MB, most of it the tokenizer.
EXTRA_BYTES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class DiskEstimate:
    """Disk space in bytes.

    Attributes:
        checkpoint: size of one checkpoint with training state.
        weights: the part of it that is weights.
        checkpoints: maximum number of checkpoints at a time.
        error: relative error in either direction.
    """

    checkpoint: int
    weights: int
    checkpoints: int
    error: float = 0.02

    @property
    def total(self) -> int:
        """Bytes of all checkpoints that exist at a time."""
        return self.checkpoint * self.checkpoints


def estimate_disk(parameters: int, layout: Layout, keep: int, saves: int) -> DiskEstimate:
    """Estimate the checkpoints of a model: weights in the training format, optimizer state in fp32.

    While a checkpoint is written, the oldest still exists, so there is one more than `keep`. -1 keeps all.
    """
    weights = parameters * layout.parameter_bytes
    master = MASTER_BYTES if layout.precision == "bf16" or layout.distributed_optimizer else 0
    state = parameters * (MOMENT_BYTES[layout.optimizer] + master)
    count = saves if keep < 0 else min(saves, keep + 1)
    return DiskEstimate(checkpoint=weights + state + EXTRA_BYTES, weights=weights, checkpoints=max(1, count))
