"""The tensors of a Hugging Face model folder, as its family's table expects them."""

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

# Computed from the configuration; old checkpoints carry them all the same
COMPUTED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "freqs_cis", ".attn.bias", ".attn.masked_bias")


class TorchFilesSource:
    """The tensors of one or more files of torch.save (`pytorch_model.bin`)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Reads the files' pickles. Raises `NemolaunchError` for a damaged file."""
        self._files = OpenFiles()
        self._places: dict[str, tuple[TorchFile, LazyTensor]] = {}
        for path in paths:
            file = TorchFile(path, self._files)
            self._places.update({name: (file, tensor) for name, tensor in lazy_tensors(file.content)})
        self.tensors = {name: tensor.info for name, (_, tensor) in self._places.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor."""
        file, tensor = self._places[name]
        return file.read(tensor)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Some rows of a tensor."""
        file, tensor = self._places[name]
        place = tensor.storage_offset + start * tensor.stride[0]
        rows = LazyTensor(tensor.info.rows(start, stop), tensor.storage, place, tensor.stride)
        return file.read(rows)

    def close(self) -> None:
        self._files.close()


@dataclass(frozen=True)
class HfWeights:
    """A model's tensors.

    Attributes:
        source: those that count, under the names of the family's table.
        quantised: they are stored in 8 or 4 bits and read as bfloat16.
        left_out: names of tensors that are no part of the language model: vision, computed frequencies.
    """

    source: TensorSource
    quantised: bool = False
    left_out: list[str] = field(default_factory=list)


def open_weights(folder: HfFolder, prefixes: Sequence[str] = ()) -> HfWeights:
    """Open a folder's weights; `prefixes` are those of a language model within a larger model."""
    safe = folder.weights[0].suffix == ".safetensors"
    stored = SafetensorsSource(folder.weights) if safe else TorchFilesSource(folder.weights)
    read = Dequantised(stored)
    names = _within(list(read.tensors), prefixes)
    kept = {name: old for name, old in names.items() if not name.endswith(COMPUTED)}
    left_out = sorted(set(read.tensors) - set(kept.values()))
    return HfWeights(Renamed(read, kept), read.is_quantised, left_out)


def _within(names: list[str], prefixes: Sequence[str]) -> dict[str, str]:
    """The language model's names without the prefix, with those they have in the file."""
    for prefix in prefixes:
        if any(name.startswith(prefix) for name in names):
            inner = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
            # Where the prefix stands within "model.", the inner names lack it, and the head stands outside
            if prefix.startswith("model."):
                inner = {f"model.{name}": old for name, old in inner.items()}
                inner.update({name: name for name in names if name.startswith("lm_head.")})
            return inner
    return {name: name for name in names}
