"""Masked language modelling on NeMo's own recipes.

A checkpoint still records NeMo's classes only: the recipe uses NeMo's bidirectional layers (`bidirectional`), and
everything else is added to the built trainer. Its `context/` therefore shows that the model is bidirectional, and
loads where nemolaunch is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from megatron.core import parallel_state
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.transformer.attention import Attention
from megatron.core.transformer.enums import AttnMaskType
from nemo.collections.llm.gpt.model.llama_embedding import get_nv_embedding_layer_spec
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor

from nemolaunch.ranks.masked_accuracy import MaskedAccuracy
from nemolaunch.ranks.masked_data import MaskedDataset, masking_of
from nemolaunch.ranks.step_metrics import ACCURACY

if TYPE_CHECKING:
    import nemo_run as run

    from nemolaunch.planning import Plan


def bidirectional(recipe: run.Partial, *, bert: bool) -> None:
    """Give the recipe bidirectional layers."""
    config = recipe.model.config
    if not bert:
        config.transformer_layer_spec = get_nv_embedding_layer_spec
        if getattr(config, "use_transformer_engine_full_layer_spec", False):
            config.use_transformer_engine_full_layer_spec = False


class MaskedTraining(Callback):
    """Masks the samples, removes the causal mask, and measures the accuracy on masked tokens in validation.

    Attributes:
        accuracy: counts masked tokens of the current validation.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._bert = plan.model_row.architecture.kind == "bert"
        self.accuracy = MaskedAccuracy(parallel_state.get_tensor_model_parallel_group)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Mask the samples of the training and validation datasets."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        masking = masking_of(self._plan, data.tokenizer.tokenizer)
        for name, validation in (("_train_ds", False), ("_validation_ds", True)):
            dataset = getattr(data, name, None)
            if dataset is not None and not isinstance(dataset, MaskedDataset):
                setattr(data, name, MaskedDataset(dataset, masking, validation=validation, bert=self._bert))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adapt the built modules: NeMo rebuilds virtual pipeline stages from the recipe's record."""
        chunks: Any = trainer.strategy.megatron_parallel  # type: ignore[attr-defined]
        for module in chunks.modules():
            if isinstance(module, Attention) and not self._bert:
                _remove_mask(module)
            if isinstance(module, LanguageModule):
                self.accuracy.listen_to(module)
        for chunk in chunks:
            chunk._validation_loss_reduction = _Counted(chunk.validation_loss_reduction, self.accuracy)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count masked tokens."""
        self.accuracy.start()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the accuracy on masked tokens."""
        pl_module.log(ACCURACY, self.accuracy.stop(pl_module.device), batch_size=1)


def _remove_mask(attention: Attention) -> None:
    """Use attention without any mask, which equals NeMo's `padding` if nothing is padded.

    With `padding`, Transformer Engine requires a mask tensor, and rejects it with context parallelism. Without a
    mask its ring exchanges whole chunks, so the order of tokens over ranks, which Megatron balances for causal
    attention and which the rotary embedding follows, does not matter.
    """
    if attention.attn_mask_type not in (AttnMaskType.padding, AttnMaskType.no_mask):
        raise RuntimeError(f"layer {attention.layer_number} is {attention.attn_mask_type}, not bidirectional")
    attention.attn_mask_type = AttnMaskType.no_mask


class _Counted(MegatronLossReduction):
    """NeMo's reduction of the validation loss, which also counts masked tokens."""

    def __init__(self, reduction: Any, accuracy: MaskedAccuracy) -> None:
        super().__init__()
        self._reduction, self._accuracy = reduction, accuracy

    def forward(self, batch: dict[str, Tensor], forward_out: Any) -> Any:
        """Reduce one micro batch, and count its masked tokens."""
        reduced = self._reduction.forward(batch, forward_out)
        self._accuracy.count(batch["loss_mask"])
        return reduced

    def reduce(self, losses_reduced_per_micro_batch: Any) -> Tensor:
        """Reduce the losses of all micro batches, as NeMo does."""
        loss: Tensor = self._reduction.reduce(losses_reduced_per_micro_batch)
        return loss
