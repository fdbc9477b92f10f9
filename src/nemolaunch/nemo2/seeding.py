"""`--seed` for the weights: NeMo passes its data module's seed to the data alone, and seeds the ranks with 1234."""

from __future__ import annotations

import functools


def seed_ranks(seed: int) -> None:
    """Have NeMo seed Python, NumPy, torch and Megatron's trackers with this number, for the weights and dropout.

    Megatron-Bridge does the same with `rng.seed`: both add 100 for each pipeline stage.
    Megatron-LM's `--seed` does the same (megatron/training/arguments.py).
    """
    from nemo.lightning import _strategy_lib

    _strategy_lib.init_parallel_ranks = functools.partial(_strategy_lib.init_parallel_ranks, seed=seed)
