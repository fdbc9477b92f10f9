"""The tensors of a Hugging Face model folder, with the names that its family's rules expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.hf.folder import HfFolder
from nemolaunch.checkpoint.hf.quantisation import check_quantised, quantisation_of
from nemolaunch.checkpoint.hf.wrapped_names import bare_name, bare_names, removed_parts
from nemolaunch.checkpoint.storage.file_parts import OpenFiles
from nemolaunch.checkpoint.storage.quantised import Dequantised
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSource, shared_names
from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSource
from nemolaunch.checkpoint.storage.torch_file import LazyTensor, TorchFile, lazy_tensors
from nemolaunch.checkpoint.storage.wrappers import Renamed, same_tensors
from nemolaunch.errors import NemolaunchError
from nemolaunch.families.rules import counted, some

if TYPE_CHECKING:
    import torch

# Computed from the configuration, but present in old checkpoints
COMPUTED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "freqs_cis", ".attn.bias", ".attn.masked_bias")


class TorchFilesSource:
    """The tensors of one or more torch.save files (`pytorch_model.bin`).

    Attributes:
        repeated: tensors that are in more than one file, with two of the files; the last one is read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read the pickles. Raises `NemolaunchError` for a damaged file."""
        self._files = OpenFiles()
        self.repeated: list[tuple[str, Path, Path]] = []
        self._places: dict[str, tuple[TorchFile, LazyTensor]] = {}
        for path in paths:
            file = TorchFile(path, self._files)
            for name, tensor in lazy_tensors(file.content):
                if name in self._places:
                    self.repeated.append((name, self._places[name][0].path, path))
                self._places[name] = (file, tensor)
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
        source: the tensors, with the names and in the form that the model has them.
        changed: how they differ from what the files hold, and which other files were not read, in words.
        left_out: the names of tensors that are not part of the language model: vision, computed frequencies.
        as_stored: whether transformers reads the same tensors from the folder.
    """

    source: TensorSource
    changed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    as_stored: bool = True


def open_weights(folder: HfFolder, prefixes: Sequence[str] = ()) -> HfWeights:
    """Open a folder's language model; `prefixes` are those of its tensors in a larger model.

    Raises `NemolaunchError` for weights that cannot be converted; see `open_tensors`.
    """
    weights = open_tensors(folder)
    found = weights.source.tensors
    names = _within(list(found), prefixes)
    kept = {name: old for name, old in names.items() if not name.endswith(COMPUTED)}
    check_quantised(folder.path, {name: found[old] for name, old in kept.items()})
    left_out = sorted({*weights.left_out, *(set(found) - set(kept.values()))})
    return replace(weights, source=Renamed(weights.source, kept), left_out=left_out)


def open_tensors(folder: HfFolder) -> HfWeights:
    """Open all tensors of a folder, as the model has them: without wrappers' prefixes, and in 16 or 32 bits.

    Raises `NemolaunchError` if they are quantised by a method that cannot be undone, are an adapter, do not match
    their index, or are stored twice with different content.
    """
    quantisation = quantisation_of(folder.path, folder.config)
    safe = folder.weights[0].suffix == ".safetensors"
    stored = SafetensorsSource(folder.weights) if safe else TorchFilesSource(folder.weights)
    _check_repeated(stored)
    listed = _listed(folder, stored.tensors)
    names = bare_names(Renamed(stored, {name: name for name in listed}), folder.path)
    shared = _shared(folder.weights, names) if safe else {}
    read = Dequantised(Renamed(stored, {**names, **shared}), quantisation.block if quantisation else None)
    changed = list(folder.files.remarks)
    wrappers = removed_parts(listed)
    if wrappers:
        changed.append(f"names are without the parts that wrappers added: {', '.join(wrappers)}")
    if shared:
        changed.append(f"stored once, and shared: {', '.join(f'{a} = {b}' for a, b in shared.items())}")
    if read.quantised:
        changed.append(f"8- or 4-bit weights become bfloat16: {counted(read.quantised, 'tensor')}")
    elif quantisation:
        changed.append(f"config.json says {quantisation.method}, but no weight is stored in 8 or 4 bits")
    kept = set(listed)
    omitted = [name for name in stored.tensors if name not in kept]
    as_stored = not (wrappers or shared or quantisation or read.quantised)
    return HfWeights(read, changed, sorted([*read.unused, *omitted]), as_stored)


def _check_repeated(stored: SafetensorsSource | TorchFilesSource) -> None:
    """Raise `NemolaunchError` if a tensor is in two files with different content."""
    for name, one, other in stored.repeated:
        first, second = (type(stored)([path]) for path in (one, other))
        if not same_tensors(first, name, second, name):
            raise NemolaunchError(
                f"{name} is in {one} and in {other.name}, with different content; remove the outdated file, or save "
                "the model again"
            )


def _listed(folder: HfFolder, stored: Mapping[str, TensorInfo]) -> list[str]:
    """Return the names of the tensors that are read: of those stored, the ones in the index, if there is one.

    Raises `NemolaunchError` if tensors of the index are in none of its files.
    """
    index = folder.files.index
    if index is None:
        return list(stored)
    absent = [name for name in index if name not in stored]
    if absent:
        raise NemolaunchError(
            f"{folder.path / (folder.files.index_name or '')} does not belong to the weight files: "
            f"{counted(absent, 'tensor')} that it lists are in none of them: {some(absent)}. Download or save the "
            "model again, or delete the index if the folder has a newer file"
        )
    return [name for name in stored if name in index]


def _shared(files: Sequence[Path], names: Mapping[str, str]) -> dict[str, str]:
    """Map names of tensors that are stored under another name, to that name in the files."""
    shared: dict[str, str] = {}
    for file in files:
        for name, same in shared_names(file).items():
            if bare_name(name) not in names:
                shared[bare_name(name)] = same
    return shared


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
