"""Check the names in a NeMo 2 checkpoint before fiddle, torch or Megatron see them.

`context/io.json` names classes and functions, which fiddle calls; files in `weights/` are pickles, which can name any.
Only what NeMo's own checkpoints contain is allowed (`nemolaunch.trust.names`).
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
    return context_fault(folder) or weights_fault(folder / "weights")
