"""What the loss of a recipe consists of, and over which tokens it is averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemolaunch.nemo2 import mlm

if TYPE_CHECKING:
    import nemo_run as run

    from nemolaunch.planning import Plan


def set_loss(recipe: run.Partial, plan: Plan) -> None:
    """Set the objective, the tokens that count, and the weight of the router's loss."""
    job, config = plan.job, recipe.model.config
    masked = job.objective.objective == "mlm"
    if masked:
        mlm.bidirectional(recipe, bert=plan.model_row.architecture.kind == "bert")
    if masked or job.data.eod_mask_loss:
        _average_over_tokens(recipe)
    if job.objective.moe_z_loss_coeff is not None:
        config.moe_z_loss_coeff = job.objective.moe_z_loss_coeff


def _average_over_tokens(recipe: run.Partial) -> None:
    """Make the loss the mean over all tokens of a step that count.

    Megatron's default averages each micro batch separately, and with context parallelism each rank's part of a
    sequence. Since their numbers of such tokens differ, the loss would depend on the layout.
    """
    recipe.model.config.calculate_per_token_loss = True
    ddp = getattr(recipe.trainer.strategy, "ddp", None)
    if ddp is not None and getattr(ddp, "average_in_collective", False):
        ddp.average_in_collective = False  # Megatron asserts that it is off with a mean over tokens
