"""Documents within a sample: where they begin, their positions, and how NeMo is told to keep them apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from nemolaunch.errors import NemolaunchError
from nemolaunch.job import Job

Sample = dict[str, Any]
LOOKED_AT = 32  # documents


def are_marked(job: Job) -> bool:
    """Return whether a job treats the ends of documents in any special way."""
    data = job.data
    return data.reset_attention_mask or data.reset_position_ids or data.eod_mask_loss


def starts(tokens: Tensor, end: int) -> Tensor:
    """Return where documents begin in a sample [n]: at 0, and after each `end` that is not the last token."""
    return torch.cat([torch.zeros(1, dtype=torch.long), (tokens[:-1] == end).nonzero().flatten() + 1])


def positions(tokens: Tensor, end: int) -> Tensor:
    """Return the position of each token [n] within its document; the document at the start begins at 0."""
    begins = starts(tokens, end)
    lengths = torch.cat([begins, torch.tensor([len(tokens)])]).diff()
    return torch.arange(len(tokens)) - begins.repeat_interleave(lengths)


def packed(tokens: Tensor, end: int) -> Sample:
    """Return the fields by which NeMo passes the documents of a sample [n] to Megatron as packed sequences.

    As in NeMo's own packed datasets (`GPTSFTPackedDataset.collate_fn`), `cu_seqlens` is padded with -1, here to a
    length that no sample exceeds, so that samples can be stacked.
    """
    bounds = torch.cat([starts(tokens, end), torch.tensor([len(tokens)])])
    cu_seqlens = torch.full((len(tokens) + 2,), -1, dtype=torch.int32)
    cu_seqlens[: len(bounds)] = bounds.int()
    return {
        "cu_seqlens": cu_seqlens,
        "cu_seqlens_argmin": torch.tensor([len(bounds)]),
        "max_seqlen": bounds.diff().max().int().reshape(1),
    }


class DocumentDataset(Dataset):
    """An indexed dataset whose samples also say where their documents begin.

    Everything else is delegated to the dataset.
    """

    def __init__(self, dataset: Any, end: int) -> None:
        self._dataset, self._end = dataset, end

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int | None) -> Sample:
        sample: Sample = self._dataset[index]
        return {**sample, **packed(sample["tokens"], self._end)}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_dataset":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)


def end_of(tokenizer: Any) -> int:
    """Return the id that ends documents for NeMo, given its `AutoTokenizer`.

    Raises:
        NemolaunchError: the tokenizer names none.
    """
    end = tokenizer.eos_id
    if end is None:
        raise NemolaunchError("the tokenizer names no eos_token, so that documents cannot be told apart")
    return int(end)


def require_ends(dataset: Any, end: int) -> None:
    """Check that the first documents of a dataset, or of each dataset of a blend, end with that token.

    Planning has checked the same if it could read the tokenizer.

    Raises:
        NemolaunchError: none of them do.
    """
    for part in getattr(dataset, "datasets", None) or [dataset]:
        indexed = part.dataset
        sequences = [int(number) - 1 for number in indexed.document_indices[1 : LOOKED_AT + 1]]
        lengths = {number: int(indexed.sequence_lengths[number]) for number in sequences}
        last = {int(indexed.get(n, offset=length - 1)[0]) for n, length in lengths.items() if length}
        if last and end not in last:
            raise NemolaunchError(
                f"documents of {part.dataset_path} do not end with the tokenizer's eos_token {end}, but for example "
                f"with {min(last)}"
            )


def marked(job: Job, tokenizer: Any, dataset: Any) -> Any:
    """Return an indexed dataset as the job needs it: whose samples say where documents begin, or as it is.

    Raises:
        NemolaunchError: documents do not end with the token by which NeMo finds their ends.
    """
    if not are_marked(job):
        return dataset
    end = end_of(tokenizer)
    require_ends(dataset, end)
    return DocumentDataset(dataset, end) if job.data.reset_attention_mask else dataset
