"""Samples of a masked language model: what Megatron's datasets give, masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from nemolaunch.data.masking import Masking
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    from nemolaunch.planning import Plan

Sample = dict[str, Any]
# Those that begin, end, separate or fill up texts. Unknown text is text.
PROTECTED = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")


def masking_of(plan: Plan, tokenizer: Any) -> Masking:
    """The plan's masking, with the ids of its tokenizer (NeMo's `AutoTokenizer`).

    Raises:
        NemolaunchError: the tokenizer has no such mask token.
    """
    objective, words = plan.job.objective, tokenizer.tokenizer
    token = objective.mask_token or words.mask_token
    vocabulary = words.get_vocab()
    if token not in vocabulary:
        what = f"no token {token!r}" if token else "no mask token"
        raise NemolaunchError(
            f"the tokenizer {plan.job.model.hf_model_id} has {what}; name one with --mask-token"
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
    """A sample for the next token, made one for masked tokens.

    Args:
        sample: as `GPTDataset` gives it: `tokens` [n] and a `loss_mask` [n] that is 0 where the token after
            is padding. Its `labels`, the tokens shifted by one, are not used.
        number: the sample's, unique in the run, or unique in an epoch where `epoch` is given.

    Returns:
        The sample with `tokens` partly replaced, the original ones as `labels`, not shifted, and a
        `loss_mask` of 1 where they have to be predicted.
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
    """A masked sample under the names that NeMo's BERT expects: one segment, no padding, no sentence pairs."""
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

    Megatron's index counts on over the epochs of a run, so that a text is masked anew each time it is seen.
    Everything else is the dataset's own.
    """

    def __init__(self, dataset: Any, masking: Masking, *, validation: bool, bert: bool) -> None:
        self._dataset, self._masking, self._validation, self._bert = dataset, masking, validation, bert

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int | None) -> Sample:
        sample = masked(
            self._dataset[index], self._masking, number=int(index or 0), validation=self._validation
        )
        if index is None:  # fills up a batch
            sample["loss_mask"] = torch.zeros_like(sample["loss_mask"])
        return as_bert(sample) if self._bert else sample

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_dataset":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)
