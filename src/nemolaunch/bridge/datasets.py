"""The data of a run: what Bridge builds, with what the job asks of it added, or the stream that it is fed from.

Bridge's configuration stays that of its own datasets, which its checkpoints record.
"""

from __future__ import annotations

from typing import Any

from megatron.bridge.data.utils import get_dataset_provider
from megatron.bridge.training import pretrain

from nemolaunch.planning import Plan
from nemolaunch.ranks.documents import marked
from nemolaunch.ranks.masked_data import MaskedDataset, masking_of
from nemolaunch.ranks.stream_source import StreamSource
from nemolaunch.ranks.stream_steps import StreamSteps


class Datasets:
    """Builds the datasets of a run.

    Attributes:
        train, validation: what this rank trains and validates on, which Bridge's callbacks do not see; None until it
            is built, and on ranks that read no data.
        source: the stream, if the run is fed from one, once its session has begun.
        steps: decides whether there is another step, if the run is fed from a stream.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.train: Any = None
        self.validation: Any = None
        self.source: StreamSource | None = None
        self.steps: StreamSteps | None = None

    def install(self) -> None:
        """Have Bridge take the datasets from here."""
        pretrain.get_dataset_provider = lambda config: self._build

    def _build(self, sizes: Any, config: Any) -> tuple[Any, Any, Any]:
        """Return the data of training, validation and test, of which Bridge requests that many samples."""
        if self.source is not None:
            return self.train, None, None  # `ValidationSets` validates
        train, validation, test = get_dataset_provider(config)(sizes, config)
        self.train = self.prepared(train, config)
        self.validation = self.prepared(validation, config, validation=True)
        return self.train, self.validation, self.prepared(test, config, validation=True)

    def prepared(self, dataset: Any, config: Any, *, validation: bool = False) -> Any:
        """Return a dataset of Megatron's as the job needs it; None if there is none."""
        if dataset is None:
            return None
        if self._plan.job.objective.objective != "mlm":
            return marked(self._plan.job, config.tokenizer, dataset)
        masking = masking_of(self._plan, as_transformers_loads(config.tokenizer))
        return MaskedDataset(dataset, masking, validation=validation, bert=False)


def as_transformers_loads(tokenizer: Any) -> Any:
    """Return the tokenizer that Megatron's wraps."""
    return tokenizer._tokenizer.tokenizer
