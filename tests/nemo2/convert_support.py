"""What the tests of conversions share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def tensors(folder: Path) -> dict[str, Any]:
    """All tensors of a Hugging Face folder, by safetensors' own reader."""
    from safetensors.torch import load_file

    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def assert_same_tensors(expected: dict[str, Any], got: dict[str, Any]) -> None:
    """The same names, types and bits."""
    import torch

    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


def run(script: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A script, to its end."""
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, timeout=900
    )
