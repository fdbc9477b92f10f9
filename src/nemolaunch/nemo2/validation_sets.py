"""Validation sets in training: each is evaluated under its name, on the same samples every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from megatron.core import parallel_state
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split
from megatron.core.num_microbatches_calculator import get_num_microbatches
from nemo.collections import llm

from nemolaunch.data.stream_budget import validation_share
from nemolaunch.data.validation_sets import ValidationSet, accuracy_key, loss_key
from nemolaunch.facts.data_files import split_bounds
from nemolaunch.nemo2.mlm import ACCURACY, MaskedAccuracy
from nemolaunch.planning import Plan
from nemolaunch.ranks.documents import marked
from nemolaunch.ranks.masked_data import MaskedDataset, masking_of
from nemolaunch.ranks.validation_batches import SEED, Batches


class ValidationSets(Callback):
    """Evaluates the plan's sets at every validation.

    The first set is what Lightning's own validation loop runs on, so its loss is `val_loss`, too. Lightning gives the
    losses of several loaders names of its own, so the other sets are evaluated after it, by the same forward pass. A
    stream with held-out rows keeps those for `val_loss`.

    Attributes:
        results: metrics of the last validation, by name, on all ranks.
        progress: called after each batch.
    """

    def __init__(self, plan: Plan, accuracy: MaskedAccuracy | None = None) -> None:
        self._plan = plan
        self._accuracy = accuracy
        self._loaders: dict[str, Batches] = {}
        rows = plan.stream is not None and validation_share(plan.job.data.split) > 0
        self._first = None if rows else plan.validation_sets[0].name
        self.results: dict[str, float] = {}
        self.progress: Callable[[Trainer], None] = lambda trainer: None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the datasets, and have the data module return the first one's batches."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = self._plan.job.batch
        for each in self._plan.validation_sets:
            dataset = self._prepared(data, set_dataset(self._plan, data, each))
            samples = each.num_batches * batch.global_batch_size
            self._loaders[each.name] = Batches(
                dataset,
                samples,
                batch.micro_batch_size,
                rank=parallel_state.get_data_parallel_rank(),
                ranks=parallel_state.get_data_parallel_world_size(),
            )
        if self._first is not None:
            first = self._loaders[self._first]
            data.val_dataloader = lambda: first
            _keep(data.data_sampler)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate on all batches of the first set; the limit in the recipe is that of the largest set."""
        if self._first is not None:
            trainer.limit_val_batches = len(self._loaders[self._first])

    def _prepared(self, data: Any, dataset: Any) -> Any:
        """Mask the samples, or mark their documents, as in training."""
        if self._accuracy is None:
            return marked(self._plan.job, data.tokenizer, dataset)
        bert = self._plan.model_row.architecture.kind == "bert"
        return MaskedDataset(
            dataset, masking_of(self._plan, data.tokenizer.tokenizer), validation=True, bert=bert
        )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate all sets but the one that the validation has just run on."""
        self.results = {}
        for name, batches in self._loaders.items():
            if name == self._first:
                continue
            if self._accuracy is not None:
                self._accuracy.start()
            self.results[loss_key(name)] = self._loss(trainer, batches)
            if self._accuracy is not None:
                self.results[accuracy_key(name)] = float(self._accuracy.stop(pl_module.device))

    def _loss(self, trainer: Trainer, batches: Batches) -> float:
        """Return the mean of the losses of all global batches, as Lightning does for the first set."""
        model: Any = trainer.strategy.model
        losses: list[torch.Tensor] = []
        micro_batches = iter(batches)
        for _ in range(len(batches) // get_num_microbatches()):
            with trainer.precision_plugin.val_step_context():
                losses.append(model.validation_step(micro_batches))
            self.progress(trainer)
        mean = torch.stack(losses).float().mean()
        # only the last pipeline stage has a loss, the others have 0
        torch.distributed.all_reduce(mean, group=parallel_state.get_pipeline_model_parallel_group())
        return float(mean)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the results of the first set."""
        if self._first is None:
            return
        seen = trainer.callback_metrics
        named = {loss_key(self._first): seen.get("val_loss"), accuracy_key(self._first): seen.get(ACCURACY)}
        first = {key: float(value) for key, value in named.items() if value is not None}
        self.results = {**first, **self.results}


def _keep(sampler: Any) -> None:
    """Have NeMo's sampler leave our batches as they are; it would wrap them in a data loader of its own."""
    transform = sampler.transform_dataloader

    def transformed(loader: Any, *args: Any, **kwargs: Any) -> Any:
        return loader if isinstance(loader, Batches) else transform(loader, *args, **kwargs)

    sampler.transform_dataloader = transformed


def set_dataset(plan: Plan, data: Any, each: ValidationSet) -> Any:
    """Build the dataset of a set: one epoch, so that it does not depend on the length of the run.

    Samples of several files are interleaved in proportion to their sizes.
    """
    config = _config(plan, data, each)
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


def _config(plan: Plan, data: Any, each: ValidationSet) -> GPTDatasetConfig:
    """Return the configuration of the run's own data for the files of a set."""
    job, prefixes = plan.job, list(each.prefixes)
    module = data
    if not isinstance(data, llm.PreTrainingDataModule):  # a stream
        module = llm.PreTrainingDataModule(
            paths=prefixes,
            seq_length=plan.seq_length,
            tokenizer=data.tokenizer,
            micro_batch_size=job.batch.micro_batch_size,
            global_batch_size=job.batch.global_batch_size,
            index_mapping_dir=plan.index_folder or job.data.index_mapping_dir,
            reset_position_ids=job.data.reset_position_ids,
            reset_attention_mask=job.data.reset_attention_mask,
            eod_mask_loss=job.data.eod_mask_loss,
        )
    seed, kwargs = module.seed, module.build_kwargs
    more = {name: value for name, value in kwargs.items() if not name.startswith(("blend", "split"))}
    if each.split:
        more |= {"blend": (prefixes, None), "split": each.split}
    else:
        more["blend_per_split"] = [None, (prefixes, None), None]
    module.seed, module.build_kwargs = SEED, more
    try:
        return module.gpt_dataset_config
    finally:
        module.seed, module.build_kwargs = seed, kwargs
