"""Check the names in a checkpoint of NeMo 2 or Megatron-Bridge before fiddle, torch or Megatron see them.

NeMo's `context/io.json` names classes and functions, which fiddle calls; the files of weights are pickles, which can
name any. Only what checkpoints of their own contain is allowed (`nemolaunch.trust.names`). Bridge's `run_config.yaml`
is only read as data, by Bridge as well when it trains.
"""

from __future__ import annotations

from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.trust.context import context_fault
from nemolaunch.trust.weights import weights_fault


def check_checkpoint(folder: Path) -> None:
    """Check every name in a checkpoint.

    Raises:
        NemolaunchError: the context or a pickle names something else, or cannot be read; with the names.
    """
    fault = checkpoint_fault(folder)
    if fault:
        raise NemolaunchError(f"{folder} is not loaded: {fault}")


def checkpoint_fault(folder: Path) -> str | None:
    """Return what is wrong with the names in a checkpoint, as a clause; None if nothing is."""
    weights = folder / "weights"
    if weights.is_dir():
        return context_fault(folder) or weights_fault(weights, folder)
    return weights_fault(folder, folder)
