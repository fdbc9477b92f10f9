"""How Megatron names a model's parameters in a distributed checkpoint.

In the model, a parameter's name includes the number of its layer and of its expert. In the checkpoint, if all layers
are alike, a parameter of all layers is one tensor, with the layers as its first axis; otherwise each layer has its
own. The experts of a layer are always one tensor, with the experts as the next axis. NeMo 2 adds a prefix to all names.
(megatron.core TransformerBlock.sharded_state_dict; TEGroupedMLP and SequentialMLP likewise.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.tensors import TensorInfo

if TYPE_CHECKING:
    import torch

EMBEDDING = "embedding.word_embeddings.weight"
WRAPPER = "module."  # NeMo 2's LightningModule holds the model under this name; Bridge has none
LAYER = re.compile(r"^(?P<stack>decoder|mtp)\.layers\.(?P<layer>\d+)\.(?P<rest>.+)$")
STACKED = re.compile(r"^(?P<stack>decoder)\.layers\.(?!\d+\.)(?P<rest>.+)$")
EXPERT = re.compile(
    r"^(?P<head>.*\.experts)\.(?P<linear>linear_fc[12])\.(?P<kind>weight|bias|_extra_state)(?P<expert>\d+)$"
)
EXPERTS = re.compile(r"^(?P<head>.*\.experts)\.experts\.(?P<linear>linear_fc[12])\.(?P<kind>weight|bias)$")
ONE_EXPERT = re.compile(
    r"^(?P<head>.*\.experts)\.experts\.(?P<expert>\d+)\.(?P<linear>linear_fc[12])\.(?P<kind>weight|bias)$"
)


def is_stacked(names: Iterable[str]) -> bool:
    """Return whether tensors of these names are from a checkpoint in which the layers are stacked."""
    return any(STACKED.match(name.removeprefix(WRAPPER)) for name in names)


@dataclass(frozen=True)
class TensorPlace:
    """Where a parameter is stored: the checkpoint's tensor, and the index on its leading axes."""

    key: str
    index: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()


def layers_are_alike(config: Mapping[str, Any]) -> bool:
    """Return whether the layers of a NeMo model with this configuration are stacked in a checkpoint."""
    frequency = config.get("moe_layer_freq") or 1
    return not (
        isinstance(frequency, (list, tuple))
        or frequency > 1
        or config.get("hetereogenous_dist_checkpoint")  # Megatron's spelling
        or config.get("heterogeneous_layers_config_encoded_json")
        or config.get("hybrid_override_pattern")
    )


def place_of(name: str, config: Mapping[str, Any], wrapper: str = "") -> TensorPlace:
    """Return where a model of this configuration stores the parameter `name` of its state dict.

    `wrapper` is the prefix of all names in the checkpoint.
    """
    index: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    key = name
    layer = LAYER.match(name)
    if layer and layer["stack"] == "decoder" and layers_are_alike(config):
        key = f"{layer['stack']}.layers.{layer['rest']}"
        index, axes = (int(layer["layer"]),), (int(config["num_layers"]),)
    expert = EXPERT.match(key)
    if expert:
        key = f"{expert['head']}.experts.{expert['linear']}.{expert['kind']}"
        index, axes = (*index, int(expert["expert"])), (*axes, int(config["num_moe_experts"]))
    return TensorPlace(wrapper + key, index, axes)


class MegatronSource:
    """A distributed checkpoint's parameters, with the names of the model's state dict.

    Attributes:
        training_state: the names of the other tensors, which are the optimizer's.
    """

    def __init__(self, stored: DcpSource) -> None:
        self._stored = stored
        self._places: dict[str, TensorPlace] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.training_state: list[str] = []
        for key in stored.tensors:
            if key.startswith(("optimizer.", "chained_")):
                self.training_state.append(key)
            else:
                self._add(key)
        self.tensors = dict(sorted(self.tensors.items(), key=lambda item: _order(item[0])))

    def read(self, name: str) -> torch.Tensor:
        """Return the parameter of one layer, or of one expert."""
        return self.read_rows(name, 0, self.tensors[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a parameter."""
        at, shape = self._places[name], self.tensors[name].rows(start, stop).shape
        offsets = (*at.index, start, *(0 for _ in shape[1:]))
        region = (*(1 for _ in at.index), *shape)
        return self._stored.read_region(at.key, offsets, region).reshape(shape)

    def close(self) -> None:
        """Close the checkpoint."""
        self._stored.close()

    def _add(self, key: str) -> None:
        info = self._stored.tensors[key]
        name, shape = key.removeprefix(WRAPPER), info.shape
        entries: list[tuple[str, tuple[int, ...]]] = [(name, ())]
        stacked = STACKED.match(name)
        if stacked:
            layers, shape = range(shape[0]), shape[1:]
            entries = [(f"{stacked['stack']}.layers.{n}.{stacked['rest']}", (n,)) for n in layers]
        if EXPERTS.match(name):
            experts, shape = range(shape[0]), shape[1:]
            entries = [(_expert(name, n), (*index, n)) for name, index in entries for n in experts]
        elif one := ONE_EXPERT.match(name):
            entries = [(f"{one['head']}.{one['linear']}.{one['kind']}{one['expert']}", ())]
        for name, index in entries:
            self._places[name] = TensorPlace(key, index)
            self.tensors[name] = TensorInfo(info.dtype, shape)


class MegatronSink:
    """A distributed checkpoint being written from parameters with the names of the model's state dict."""

    def __init__(self, stored: DcpSink, places: Mapping[str, TensorPlace]) -> None:
        """`places` has the checkpoint's names, with NeMo's prefix if it is NeMo's."""
        self._stored, self._places = stored, places

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one parameter."""
        at = self._places[name]
        offsets = (*at.index, *(0 for _ in tensor.shape))
        shape = (*(1 for _ in at.index), *tensor.shape)
        self._stored.write_region(at.key, offsets, tensor.reshape(shape))

    def finish(self) -> None:
        """Complete the checkpoint."""
        self._stored.finish()


def stored_tensors(
    tensors: Mapping[str, TensorInfo], places: Mapping[str, TensorPlace]
) -> dict[str, TensorInfo]:
    """Return the checkpoint's whole tensors, given the parameters that are parts of them."""
    whole = {}
    for name, info in tensors.items():
        at = places[name]
        whole[at.key] = TensorInfo(info.dtype, (*at.axes, *info.shape))
    return whole


def _expert(name: str, number: int) -> str:
    match = EXPERTS.match(name)
    assert match is not None
    return f"{match['head']}.{match['linear']}.{match['kind']}{number}"


def _order(name: str) -> tuple[int, int, str]:
    """Return a sort key: embedding, layers by number, the rest, as a model is read and others write it."""
    match = LAYER.match(name)
    if match:
        return (1 if match["stack"] == "decoder" else 2, int(match["layer"]), "")
    return (0 if name.startswith("embedding.") else 3, 0, "")
