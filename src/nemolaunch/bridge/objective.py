"""What a run is trained for: its loss, the tokens that count, and what its layers attend to."""

from __future__ import annotations

from megatron.bridge.training.config import ConfigContainer

from nemolaunch.bridge import bidirectional
from nemolaunch.planning import Plan


def set_objective(config: ConfigContainer, plan: Plan) -> None:
    """Set what is predicted from what.

    Where not all tokens count, the loss is the mean over all tokens of a step that do. Megatron's default averages
    each micro batch separately. Since their numbers of such tokens differ, the loss would depend on the layout.
    """
    masked = plan.job.objective.objective == "mlm"
    if masked:
        config.model.transformer_layer_spec = bidirectional.layers
    if masked or plan.job.data.eod_mask_loss:
        config.model.calculate_per_token_loss = True
        config.ddp.average_in_collective = False  # Megatron asserts that it is off with a mean over tokens
