"""The tensors of a Hugging Face model folder, with the names that its family's rules expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.hf.folder import HfFolder
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSource
from nemolaunch.checkpoint.storage.tensors import TensorSource
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile, lazy_tensors
from nemolaunch.checkpoint.storage.wrappers import Dequantised, Renamed

if TYPE_CHECKING:
    import torch

# Computed from the configuration, but present in old checkpoints
COMPUTED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "freqs_cis", ".attn.bias", ".attn.masked_bias")


class TorchFilesSource:
    """The tensors of one or more torch.save files (`pytorch_model.bin`)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read the pickles. Raises `NemolaunchError` for a damaged file."""
        self._files = OpenFiles()
        self._places: dict[str, tuple[TorchFile, LazyTensor]] = {}
        for path in paths:
            file = TorchFile(path, self._files)
            self._places.update({name: (file, tensor) for name, tensor in lazy_tensors(file.content)})
        self.tensors = {name: tensor.info for name, (_, tensor) in self._places.items()}

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        file, tensor = self._places[name]
        return file.read(tensor)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        file, tensor = self._places[name]
        first = tensor.storage_offset + start * tensor.stride[0]
        rows = LazyTensor(tensor.info.rows(start, stop), tensor.storage, first, tensor.stride)
        return file.read(rows)

    def close(self) -> None:
        """Close all files."""
        self._files.close()


@dataclass(frozen=True)
class HfWeights:
    """A model's tensors.

    Attributes:
        source: the language model's tensors, with the names of the family's rules.
        quantised: whether they are stored in 8 or 4 bits, and read as bfloat16.
        left_out: the names of tensors that are not part of the language model: vision, computed frequencies.
    """

    source: TensorSource
    quantised: bool = False
    left_out: list[str] = field(default_factory=list)


def open_weights(folder: HfFolder, prefixes: Sequence[str] = ()) -> HfWeights:
    """Open a folder's weights; `prefixes` are those of a language model's tensors in a larger model."""
    safe = folder.weights[0].suffix == ".safetensors"
    stored = SafetensorsSource(folder.weights) if safe else TorchFilesSource(folder.weights)
    read = Dequantised(stored)
    names = _within(list(read.tensors), prefixes)
    kept = {name: old for name, old in names.items() if not name.endswith(COMPUTED)}
    left_out = sorted(set(read.tensors) - set(kept.values()))
    return HfWeights(Renamed(read, kept), read.is_quantised, left_out)


def _within(names: list[str], prefixes: Sequence[str]) -> dict[str, str]:
    """Map the language model's names, without the prefix, to the names in the file."""
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in names):
            inner = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
            # If the prefix begins with "model.", the inner names lack that, and the output layer is outside
            if prefix.startswith("model."):
                inner = {f"model.{name}": old for name, old in inner.items()}
                inner.update({name: name for name in names if name.startswith("lm_head.")})
            return inner
    return {name: name for name in names}
