"""Validation in Bridge's training loop, on the same samples every time, as NeMo does it; each set under its name.

Bridge itself shuffles the samples and evaluates different ones each time.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from megatron.bridge.training import train
from megatron.bridge.training.callbacks import Callback, CallbackContext, CallbackManager
from megatron.bridge.training.eval import evaluate
from megatron.core import parallel_state
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split

from nemolaunch.bridge.datasets import Datasets
from nemolaunch.bridge.loss import StepLoss, validation_loss
from nemolaunch.bridge.rank import device_of
from nemolaunch.data.stream_budget import validation_share
from nemolaunch.data.validation_sets import ValidationSet, accuracy_key, loss_key
from nemolaunch.facts.data_files import split_bounds
from nemolaunch.planning import Plan
from nemolaunch.ranks.step_metrics import StepMetrics
from nemolaunch.ranks.validation_batches import SEED, Batches

OWN = ""  # stands for the validation share of the run's own data among the names of sets


class ValidationSets(Callback):
    """Evaluates the plan's sets at every validation, in place of Bridge's own. The loss of the first is `val_loss`.

    Without sets, and of a stream with held-out rows, `val_loss` is that of the data's own share.

    Args:
        progress: told of each batch.
        data: adds what the job asks of datasets.
        loss: computes the losses.
    """

    def __init__(
        self, plan: Plan, rows: StepMetrics, progress: Callback, data: Datasets, loss: StepLoss
    ) -> None:
        self._plan, self._rows, self._data, self._loss = plan, rows, data, loss
        self._batches: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._progress = CallbackManager()
        self._progress.add(progress)

    def on_train_start(self, context: CallbackContext) -> None:
        """Build the datasets of sets, and have the loop evaluate them."""
        size, run = self._plan.job.batch, context.state.cfg.dataset
        ranks = parallel_state.get_data_parallel_world_size()
        own = num_own_batches(self._plan)
        if own and self._plan.stream is None:
            # as Bridge has built it: None on ranks that need none, or if the split has no documents
            self._add(OWN, self._data.validation, own)
        elif own:
            assert self._data.source is not None
            micro_batches = own * size.global_batch_size // (size.micro_batch_size * ranks)
            self._batches[OWN] = self._data.source.validation_feed(micro_batches)
            self._counts[OWN] = own
        for each in self._plan.validation_sets:
            dataset = self._data.prepared(set_dataset(run, each), run, validation=True)
            self._add(each.name, dataset, each.num_batches)
        if self._plan.validation_sets or self._plan.stream is not None:
            context.state.train_state.do_valid = True  # Bridge has built no validation data of its own
        train.evaluate_and_print_results = self._evaluate

    def _add(self, name: str, dataset: Any, count: int) -> None:
        size = self._plan.job.batch
        self._counts[name] = count
        self._batches[name] = None
        if dataset is not None:
            self._batches[name] = Batches(
                dataset,
                count * size.global_batch_size,
                size.micro_batch_size,
                rank=parallel_state.get_data_parallel_rank(),
                ranks=parallel_state.get_data_parallel_world_size(),
            )

    def _evaluate(
        self, state: Any, prefix: str, step: Any, data: Any, model: Any, config: Any, **options: Any
    ) -> None:
        """Evaluate every set, and write the row of the validation."""
        self._rows.pause()
        found: dict[str, float] = {}
        shares: dict[str, float] = {}
        forward, accuracy = self._loss.validation_step(), self._loss.accuracy
        configured = state.cfg.validation.eval_iters
        for name, batches in self._batches.items():
            state.cfg.validation.eval_iters = self._counts[name]
            if accuracy is not None:
                accuracy.start()
            feed = None if batches is None else iter(batches)
            losses, _, _ = evaluate(
                state, forward, feed, model, None, config, callback_manager=self._progress
            )
            found[name] = validation_loss(losses)
            if accuracy is not None:
                shares[name] = float(accuracy.stop(device_of(self._plan)))
        state.cfg.validation.eval_iters = configured
        first, share = next(iter(found.values())), next(iter(shares.values()), None)
        sets = {loss_key(name): loss for name, loss in found.items() if name != OWN}
        sets |= {accuracy_key(name): each for name, each in shares.items() if name != OWN}
        self._rows.validated(state.train_state.step, first, share, sets=sets)


def num_own_batches(plan: Plan) -> int:
    """Return how many global batches of the data's own validation share a validation has; 0 if it has none."""
    is_validated = (
        not plan.validation_sets if plan.stream is None else validation_share(plan.job.data.split) > 0
    )
    return plan.job.logging.limit_val_batches if is_validated else 0


def set_dataset(run: Any, each: ValidationSet) -> Any:
    """Build the dataset of a set: one epoch, so that it does not depend on the length of the run.

    Samples of several files are interleaved in proportion to their sizes.

    Args:
        run: configuration of the run's own data.
    """
    config = _config(run, each)
    parts = []
    for prefix in each.prefixes:
        sequences = GPTDataset.build_low_level_dataset(prefix, config)
        count = GPTDataset.numel_low_level_dataset(sequences)
        start, end = split_bounds(each.split, count)[Split.valid.value] if each.split else (0, count)
        indices = np.arange(start, end, dtype=np.int32)
        parts.append(_built(GPTDataset, sequences, prefix, indices, None, Split.valid, config))
    return parts[0] if len(parts) == 1 else _built(BlendedDataset, parts, [*map(len, parts)], None, config)


def _built(kind: Any, *args: Any) -> Any:
    """Build a dataset on the first rank, which writes its index, then on the others."""
    return BlendedMegatronDatasetBuilder.build_generic_dataset(kind, lambda: True, True, *args)


def _config(run: Any, each: ValidationSet) -> GPTDatasetConfig:
    """Return the configuration of the run's own data for the files of a set."""
    values = {
        field.name: getattr(run, field.name) for field in dataclasses.fields(GPTDatasetConfig) if field.init
    }
    values |= {"random_seed": SEED, "blend": None, "blend_per_split": None, "split": each.split}
    if each.split:
        values["blend"] = (list(each.prefixes), None)
    else:
        values["blend_per_split"] = [None, (list(each.prefixes), None), None]
    return GPTDatasetConfig(**values)
