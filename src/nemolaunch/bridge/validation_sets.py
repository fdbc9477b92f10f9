"""Validation sets in Bridge's training loop: each is evaluated under its name, on the same samples every time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from megatron.bridge.training import train
from megatron.bridge.training.callbacks import Callback, CallbackContext, CallbackManager
from megatron.bridge.training.eval import evaluate
from megatron.bridge.training.gpt_step import forward_step
from megatron.core import parallel_state
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split

from nemolaunch.bridge.datasets import Datasets
from nemolaunch.bridge.loss import validation_loss
from nemolaunch.data.validation_sets import ValidationSet, loss_key
from nemolaunch.facts.data_files import split_bounds
from nemolaunch.planning import Plan
from nemolaunch.ranks.step_metrics import StepMetrics
from nemolaunch.ranks.validation_batches import SEED, Batches


class ValidationSets(Callback):
    """Evaluates the plan's sets at every validation, in place of Bridge's own. The loss of the first is `val_loss`.

    Args:
        progress: told of each batch.
        data: adds what the job asks of datasets.
    """

    def __init__(self, plan: Plan, rows: StepMetrics, progress: Callback, data: Datasets) -> None:
        self._plan, self._rows, self._data = plan, rows, data
        self._batches: dict[str, Batches] = {}
        self._progress = CallbackManager()
        self._progress.add(progress)

    def on_train_start(self, context: CallbackContext) -> None:
        """Build the datasets, and have the loop evaluate them. Bridge has built no validation data of its own."""
        size, run = self._plan.job.batch, context.state.cfg.dataset
        for each in self._plan.validation_sets:
            self._batches[each.name] = Batches(
                self._data.prepared(set_dataset(run, each), run),
                each.num_batches * size.global_batch_size,
                size.micro_batch_size,
                rank=parallel_state.get_data_parallel_rank(),
                ranks=parallel_state.get_data_parallel_world_size(),
            )
        context.state.train_state.do_valid = True
        train.evaluate_and_print_results = self._evaluate

    def _evaluate(
        self, state: Any, prefix: str, step: Any, data: Any, model: Any, config: Any, **options: Any
    ) -> None:
        """Evaluate every set, and write the row of the validation."""
        self._rows.pause()
        found: dict[str, float] = {}
        for each in self._plan.validation_sets:
            state.cfg.validation.eval_iters = each.num_batches
            batches = iter(self._batches[each.name])
            losses, _, _ = evaluate(
                state, forward_step, batches, model, None, config, callback_manager=self._progress
            )
            found[loss_key(each.name)] = validation_loss(losses)
        state.cfg.validation.eval_iters = 0
        self._rows.validated(state.train_state.step, next(iter(found.values())), sets=found)


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
