"""Fields of samples with documents, compared with Megatron's in the ranks of the fork server."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

END = 3


def fields() -> list[str]:
    """Return the samples and fields that differ from Megatron's: mask, positions, loss; of an indexed data set too."""
    import numpy as np
    import torch
    from megatron.core.datasets.gpt_dataset import _get_ltor_masks_and_position_ids

    from nemolaunch.ranks.documents import DocumentDataset
    from nemolaunch.ranks.stream_fields import DocumentFields

    rng = np.random.default_rng(1)
    samples = [rng.integers(0, 8, 33) for _ in range(50)]  # one token in eight is an end
    samples += [np.full(33, END), np.zeros(33, int), np.array([END, *[1] * 31, END])]
    make = DocumentFields(END, separate=True, restart=True, mask_loss=True)
    wrong = []
    for number, ids in enumerate(samples):
        ours = make(ids.astype(np.int32), number)
        tokens = torch.from_numpy(ids[:-1])
        mask, loss, positions = _get_ltor_masks_and_position_ids(tokens, END, True, True, True, True)
        theirs = {"loss_mask": loss, "position_ids": positions}
        wrong += [f"{number} {name}" for name, value in theirs.items() if not torch.equal(ours[name], value)]
        if not torch.equal(_mask(ours), mask[0]):
            wrong.append(f"{number} mask")
        indexed: Any = DocumentDataset({number: {"tokens": tokens, "labels": None}}, END)[number]
        if any(not torch.equal(indexed[name], ours[name]) for name in ("tokens", "cu_seqlens", "max_seqlen")):
            wrong.append(f"{number} indexed")
    return wrong


def _mask(sample: dict[str, Any]) -> Any:
    """Return the mask that packed sequences amount to, True where a token does not attend, as NeMo reads them."""
    import torch
    from nemo.collections.llm.gpt.model.base import get_packed_seq_params

    batch = torch.utils.data.default_collate([sample])
    packed = get_packed_seq_params(batch)
    bounds = packed.cu_seqlens_q.tolist()
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    assert int(packed.max_seqlen_q) == max(lengths)
    seen = torch.block_diag(*(torch.ones(length, length).tril() for length in lengths))
    return seen < 0.5


def ends(prefix: str, end: int) -> str | None:
    """Return why documents of a data set do not end with that token; None if they do."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    from nemolaunch.errors import NemolaunchError
    from nemolaunch.ranks.documents import require_ends

    try:
        require_ends(SimpleNamespace(dataset=IndexedDataset(prefix), dataset_path=prefix), end)
    except NemolaunchError as error:
        return str(error)
    return None
