"""What the fork server's rank runs to compute the losses of validation sets without a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def by_hand(
    checkpoint: str, sets: dict[str, dict[str, Any]], num_samples: int, seq_length: int
) -> dict[str, float]:
    """Return the mean loss of the first samples of each set, by the model in `checkpoint`, in float32.

    Each of `sets` has `prefixes` and, if only the documents from this share of each file on belong to it, `split`.
    """
    import torch

    from nemolaunch.nemo2.logits import load

    model = load(Path(checkpoint)).module.float().eval()
    losses = {}
    for name, files in sets.items():
        rows = torch.tensor(first_samples(**files, count=num_samples, length=seq_length))
        tokens, labels = rows[:, :-1], rows[:, 1:]
        positions = torch.arange(seq_length).expand_as(tokens)
        with torch.no_grad():
            logits: Any = model(tokens, positions, attention_mask=None)
        losses[name] = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    return losses


def first_samples(prefixes: list[str], *, count: int, length: int, split: float = 0.0) -> list[list[int]]:
    """Return the first samples of files, read round by round in proportion to their numbers of samples.

    Within a file: documents in the order of a generator with seed 1234, joined, cut into samples that overlap by one
    token, in an order by the same generator.
    """
    import numpy as np
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    files = []
    for prefix in prefixes:
        documents = IndexedDataset(prefix)
        order = np.arange(round(split * len(documents)), len(documents))
        generator = np.random.RandomState(1234)
        generator.shuffle(order)
        tokens = np.concatenate([documents[int(i)] for i in order]).astype(np.int64)
        places = np.arange((len(tokens) - 1) // length, dtype=np.uint32)
        generator.shuffle(places)
        files.append([tokens[p * length : p * length + length + 1].tolist() for p in places.tolist()])
    taken = [0] * len(files)
    rows: list[list[int]] = []
    total = sum(map(len, files))
    while len(rows) < count:
        behind = [len(f) / total * (len(rows) + 1) - t for f, t in zip(files, taken, strict=True)]
        place = behind.index(max(behind))
        rows.append(files[place][taken[place]])
        taken[place] += 1
    return rows
