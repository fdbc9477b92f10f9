"""Samples for a masked language model: those of Megatron's datasets, masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from nemolaunch.data.masking import Masking
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    from nemolaunch.planning import Plan

Sample = dict[str, Any]
# Special tokens that begin, end, separate or pad texts. The unknown token counts as text.
PROTECTED = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")


def masking_of(plan: Plan, words: Any) -> Masking:
    """Return the plan's masking, with the ids of its tokenizer, as transformers loads it.

    Raises:
        NemolaunchError: the tokenizer does not have the mask token.
    """
    objective = plan.job.objective
    token = objective.mask_token or words.mask_token
    vocabulary = words.get_vocab()
    if token not in vocabulary:
        what = f"no token {token!r}" if token else "no mask token"
        raise NemolaunchError(
            f"the tokenizer {plan.job.model.hf_model_id} has {what}; choose one of its tokens with --mask-token"
        )
    ends = {getattr(words, name, None) for name in PROTECTED} | set(plan.end_tokens)
    return Masking(
        probability=objective.mlm_probability,
        replacement=objective.mlm_replacement,
        span_length=objective.mlm_span_length,
        mask_token=vocabulary[token],
        vocab_size=len(words),
        protected=tuple(sorted(end for end in ends if end is not None)),
        seed=plan.job.batch.seed,
    )


def masked(
    sample: Sample, masking: Masking, *, number: int, epoch: int = 0, validation: bool = False
) -> Sample:
    """Turn a sample for next-token prediction into one for masked tokens.

    Args:
        sample: as returned by `GPTDataset`: `tokens` [n] and a `loss_mask` [n] that is 0 where the next token
            is padding. Its `labels`, the tokens shifted by one, are not used.
        number: number of the sample, unique in the run, or unique in the epoch if `epoch` is given.

    Returns:
        The sample with some `tokens` replaced, the original tokens as `labels` (not shifted), and a `loss_mask`
        of 1 for the tokens to predict.
    """
    tokens = sample["tokens"]
    is_text = torch.cat([torch.ones(1), sample["loss_mask"][:-1]]) > 0
    made = masking(tokens.numpy(), sample=number, epoch=epoch, validation=validation, is_text=is_text.numpy())
    return {
        **sample,
        "tokens": torch.from_numpy(made.inputs),
        "labels": tokens,
        "loss_mask": torch.from_numpy(made.predicted).to(sample["loss_mask"].dtype),
    }


def as_bert(sample: Sample) -> Sample:
    """Return a masked sample with the keys that NeMo's BERT expects: one segment, no padding, no sentence pairs."""
    tokens = sample["tokens"]
    return {
        "text": tokens,
        "types": torch.zeros_like(tokens),
        "labels": sample["labels"],
        "loss_mask": sample["loss_mask"],
        "padding_mask": torch.ones_like(tokens),
        "is_random": torch.tensor(0),
    }


class MaskedDataset(Dataset):
    """An indexed dataset whose samples are masked by their index.

    Megatron's index keeps counting across epochs, so a text is masked differently each time it is seen.
    Everything else is delegated to the dataset.
    """

    def __init__(self, dataset: Any, masking: Masking, *, validation: bool, bert: bool) -> None:
        self._dataset, self._masking, self._validation, self._bert = dataset, masking, validation, bert

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int | None) -> Sample:
        sample = masked(
            self._dataset[index], self._masking, number=int(index or 0), validation=self._validation
        )
        if index is None:  # pads a batch
            sample["loss_mask"] = torch.zeros_like(sample["loss_mask"])
        return as_bert(sample) if self._bert else sample

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_dataset":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)
