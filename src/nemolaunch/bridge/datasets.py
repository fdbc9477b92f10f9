"""The datasets of a run: those that Bridge builds, with what the job asks of them added, and the training data kept.

Bridge's configuration stays that of its own datasets, which its checkpoints record.
"""

from __future__ import annotations

from typing import Any

from megatron.bridge.data.utils import get_dataset_provider
from megatron.bridge.training import pretrain

from nemolaunch.planning import Plan
from nemolaunch.ranks.documents import marked


class Datasets:
    """Builds the datasets of a run.

    Attributes:
        train: what this rank trains on, which Bridge's callbacks do not see; None until it is built.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.train: Any = None

    def install(self) -> None:
        """Have Bridge take the datasets from here."""
        pretrain.get_dataset_provider = lambda config: self._build

    def _build(self, sizes: Any, config: Any) -> tuple[Any, Any, Any]:
        """Return the data of training, validation and test, of which Bridge requests that many samples."""
        built = get_dataset_provider(config)(sizes, config)
        train, validation, test = (self.prepared(dataset, config) for dataset in built)
        self.train = train
        return train, validation, test

    def prepared(self, dataset: Any, config: Any) -> Any:
        """Return a dataset of Megatron's as the job needs it; None if there is none."""
        return None if dataset is None else marked(self._plan.job, config.tokenizer, dataset)
