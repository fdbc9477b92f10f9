"""Bare tensors, without a description of their model: torch.save, safetensors, distributed checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.checkpoint.hf.weights import COMPUTED, TorchFilesSource
from nemolaunch.checkpoint.hf.wrapped_names import bare_names
from nemolaunch.checkpoint.meta.tensors import EMBEDDING
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.safetensors import SafetensorsSink, SafetensorsSource
from nemolaunch.checkpoint.storage.tensors import TensorInfo, TensorSink, TensorSource
from nemolaunch.checkpoint.storage.torch_write import TorchSink
from nemolaunch.checkpoint.storage.wrappers import Renamed
from nemolaunch.errors import NemolaunchError

if TYPE_CHECKING:
    import torch

# Prefixes of what trainers save besides the model
TRAINING = re.compile(
    r"(optim(izer)?s?(_states?)?|chained_\d+|(lr_)?schedulers?|lr_schedulers?|dataloader|train_state|rng_state|ema)(\.|$)"
)
WRAPPERS = ("state_dict.", "model_state_dict.", "module.", "model.")


class CombinedSource:
    """Several sources as one. Their names must differ."""

    def __init__(self, sources: Iterable[TensorSource]) -> None:
        self._sources = list(sources)
        self._of = {name: source for source in self._sources for name in source.tensors}
        self.tensors = {name: source.tensors[name] for name, source in self._of.items()}

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor."""
        return self._of[name].read(name)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a tensor."""
        return self._of[name].read_rows(name, start, stop)

    def close(self) -> None:
        """Close all sources."""
        for source in self._sources:
            source.close()


def open_bare(path: Path, form: str) -> TensorSource:
    """Return the tensors of a file or folder in the format `torch`, `safetensors` or `dcp`, as stored.

    Raises `NemolaunchError` if it is damaged or has no tensors.
    """
    source: TensorSource
    if form == "torch":
        source = TorchFilesSource([path])
    elif form == "safetensors":
        source = SafetensorsSource([path] if path.is_file() else sorted(path.glob("*.safetensors")))
    else:
        source = DcpSource(path)
    if not source.tensors:
        source.close()
        raise NemolaunchError(f"{path} has no tensors")
    return source


def write_bare(path: Path, tensors: Mapping[str, TensorInfo], form: str, *, one_file: bool) -> TensorSink:
    """Return a sink for one of these formats; with `one_file`, safetensors are written to one file, not a folder."""
    if form == "torch":
        return TorchSink(path, tensors)
    if form == "safetensors" and one_file:
        return SafetensorsSink(path.parent, tensors, one_file=path.name)
    path.mkdir(parents=True)
    return SafetensorsSink(path, tensors) if form == "safetensors" else DcpSink(path, tensors)


def model_only(source: TensorSource) -> tuple[TensorSource, list[str]]:
    """Return the model's tensors without training state, and the names of the omitted tensors.

    What wrappers such as torch.compile added to names is removed, and a prefix that all names share (`model.` in a
    trainer's dictionary). Raises `NemolaunchError` for an adapter's tensors.
    """
    kept = [name for name in source.tensors if not TRAINING.match(name) and not name.endswith(COMPUTED)]
    names = bare_names(Renamed(source, {name: name for name in kept}), "the source")
    wrapper = next((w for w in WRAPPERS if _is_wrapped(list(names), w)), "")
    names = {name.removeprefix(wrapper): old for name, old in names.items()}
    of_model = set(kept)
    return Renamed(source, names), [name for name in source.tensors if name not in of_model]


def _is_wrapped(names: list[str], wrapper: str) -> bool:
    inner = [name.removeprefix(wrapper) for name in names if name.startswith(wrapper)]
    if not names or len(inner) < len(names):
        return False
    # Hugging Face's own names begin with "model." too; there it is not a wrapper
    return wrapper != "model." or any(_begins_a_model(name) for name in inner)


def _begins_a_model(name: str) -> bool:
    return name == EMBEDDING or name.startswith(("model.", "transformer.", "embedding."))


def objects_of(source: TensorSource) -> Iterator[str]:
    """Yield the names of what a distributed checkpoint holds besides tensors."""
    yield from getattr(source, "objects", ())
