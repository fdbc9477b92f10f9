"""What the fork server's ranks run in the tests of documents: a saved plan, with ids and logits recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def train(plan_file: str, record: str) -> dict[str, list[float]]:
    """Train the plan in this rank. Return the losses of training and validation.

    The ids [sample, n], logits [sample, n, vocabulary] and loss masks [sample, n] of both are saved to the file
    `record`, as lists of micro batches under `train` and `validation`.
    """
    import torch
    from lightning.pytorch import Callback
    from megatron.core.models.common.language_module.language_module import LanguageModule
    from nemo.lightning.megatron_parallel import MaskedTokenLossReduction

    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan

    seen: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    losses: dict[str, list[float]] = {"train": [], "validation": []}

    class Record(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            for module in trainer.strategy.megatron_parallel.modules():
                if isinstance(module, LanguageModule):
                    module.register_forward_pre_hook(self.fed, with_kwargs=True)
                    self.loss, module.compute_language_model_loss = (
                        module.compute_language_model_loss,
                        self.lost,
                    )
            self.reduce = MaskedTokenLossReduction.forward
            MaskedTokenLossReduction.forward = self.masked

        def fed(self, module: Any, args: Any, kwargs: Any) -> None:
            self.row = {"ids": (args[0] if args else kwargs["input_ids"]).clone()}
            seen["train" if module.training else "validation"].append(self.row)

        def lost(self, labels: Any, logits: Any) -> Any:
            self.row |= {"labels": labels.clone(), "logits": logits.detach().transpose(0, 1).clone()}
            return self.loss(labels, logits)

        def masked(self, batch: Any, out: Any) -> Any:
            self.row["loss_mask"] = batch["loss_mask"].clone()
            return self.reduce(reduction, batch, out)

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            losses["train"].append(float(trainer.callback_metrics["reduced_train_loss"]))

        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            losses["validation"].append(float(trainer.callback_metrics["val_loss"]))

    reduction = MaskedTokenLossReduction()
    plan = Plan.load(Path(plan_file))
    run_plan(plan, callbacks=(Record(),))
    torch.save(seen, record)
    return losses
