"""What the ranks of the Bridge server run in the tests of documents: a saved plan, with ids and logits recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def train(plan_file: str, record: str) -> None:
    """Train the plan in this rank.

    The ids [sample, n] and logits [sample, n, vocabulary] are saved to the file `record`, as lists of micro batches
    under `train` and `validation`.
    """
    import torch
    from megatron.bridge.training.callbacks import Callback
    from megatron.core.models.common.language_module.language_module import LanguageModule

    from nemolaunch.bridge.entry import run_plan
    from nemolaunch.planning import Plan

    seen: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}

    class Record(Callback):
        def on_train_start(self, context: Any) -> None:
            for chunk in context.model:
                for module in chunk.modules():
                    if isinstance(module, LanguageModule):
                        module.register_forward_pre_hook(self.fed, with_kwargs=True)
                        self.loss = module.compute_language_model_loss
                        module.compute_language_model_loss = self.lost

        def fed(self, module: Any, args: Any, kwargs: Any) -> None:
            self.row = {"ids": kwargs["input_ids"].clone()}
            seen["train" if module.training else "validation"].append(self.row)

        def lost(self, labels: Any, logits: Any) -> Any:
            self.row["logits"] = logits.detach().transpose(0, 1).clone()
            return self.loss(labels, logits)

    run_plan(Plan.load(Path(plan_file)), callbacks=(Record(),))
    torch.save(seen, record)
