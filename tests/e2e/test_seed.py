"""`--seed` decides the weights that a run begins with, as Megatron-LM's flag of that name does."""

from __future__ import annotations

from pathlib import Path

import torch
from e2e.jobs import planned, train
from forkserver import ForkServer

from nemolaunch.checkpoint.nemo2.folder import read_folder

EMBEDDING = "embedding.word_embeddings.weight"


def test_the_first_weights_depend_on_the_seed_alone(
    fork_server: ForkServer, data: str, tmp_path: Path
) -> None:
    first, other, same = (
        _embedding(fork_server, data, tmp_path / name, seed) for name, seed in (("a", 7), ("b", 8), ("c", 7))
    )
    assert torch.equal(first, same)
    # a step at this rate moves a weight by 1e-6 at most; NeMo's initial ones have a deviation of 0.01 to 0.02
    assert (first - other).abs().mean() > 1e-3


def _embedding(server: ForkServer, data: str, folder: Path, seed: int) -> torch.Tensor:
    """The word embeddings after one step."""
    folder.mkdir()
    plan = planned(folder, data, seed=seed, max_steps=1, lr=1e-6, min_lr=1e-7, warmup_steps=0)
    train(server, plan)
    checkpoint = plan.run.last_checkpoint()
    assert checkpoint is not None
    source = read_folder(checkpoint).source()
    try:
        return source.read(EMBEDDING)
    finally:
        source.close()
