"""Documents that do not attend to each other.

Megatron's dataset can build a mask for this, but the layers of Transformer Engine mask causally and ignore it. NeMo
passes documents to them as packed sequences if a sample says where they begin. That is added to the built datasets,
so that a checkpoint only records NeMo's classes.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemolaunch.planning import Plan
from nemolaunch.ranks.documents import DocumentDataset, marked


class DocumentEnds(Callback):
    """Checks that NeMo finds the ends of documents, and separates documents if the job asks for it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Mark the documents of the training and validation datasets."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for name in ("_train_ds", "_validation_ds"):
            dataset = getattr(data, name, None)
            if dataset is not None and not isinstance(dataset, DocumentDataset):
                setattr(data, name, marked(self._plan.job, data.tokenizer, dataset))
