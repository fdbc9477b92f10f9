"""What the loss of a run consists of, and over which tokens it is averaged."""

from __future__ import annotations

from megatron.bridge.training.config import ConfigContainer

from nemolaunch.planning import Plan


def set_loss(config: ConfigContainer, plan: Plan) -> None:
    """Make the loss the mean over all tokens of a step that count, where not all of them do.

    Megatron's default averages each micro batch separately. Since their numbers of such tokens differ, the loss would
    depend on the layout.
    """
    if plan.job.data.eod_mask_loss:
        config.model.calculate_per_token_loss = True
        config.ddp.average_in_collective = False  # Megatron asserts that it is off with a mean over tokens
