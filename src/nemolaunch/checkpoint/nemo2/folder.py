"""NeMo 2 checkpoint folders: a distributed checkpoint in `weights/`, and the model's description in `context/`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.nemo2 import context
from nemolaunch.checkpoint.nemo2.megatron_names import (
    WRAPPER,
    MegatronSink,
    MegatronSource,
    TensorPlace,
    place_of,
    stored_tensors,
)
from nemolaunch.checkpoint.storage.dcp import DcpSource
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.errors import UsageError
from nemolaunch.facts.checkpoint import look_at_checkpoint
from nemolaunch.families.nemo_config import NemoConfig
from nemolaunch.families.param_shapes import extra_states

# megatron.core.dist_checkpointing's description of its own format
BACKEND = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
# What NeMo's importers save for an untrained model: Lightning's state, and Megatron's layout
COMMON: dict[str, Any] = {
    "epoch": 0,
    "global_step": 0,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": {},
    "callbacks": {},
    "optimizer_states": [],
    "lr_schedulers": [],
    "content_metadata": {
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
        "distrib_optim_sharding_type": "dp_reshardable",
    },
}


@dataclass(frozen=True)
class Nemo2Folder:
    """A checked checkpoint folder."""

    path: Path
    config: NemoConfig

    @property
    def weights(self) -> Path:
        """The distributed checkpoint."""
        return self.path / "weights"

    def source(self) -> MegatronSource:
        """Open the parameters. Raises `NemolaunchError` if the checkpoint is damaged or incomplete."""
        return MegatronSource(DcpSource(self.weights))


def read_folder(path: Path) -> Nemo2Folder:
    """Check a checkpoint folder, or its `weights/`, and read the description of the model.

    Raises:
        UsageError: it is not a complete NeMo 2 checkpoint of a whole model.
        NemolaunchError: its context is damaged.
    """
    if path.name == "weights" and (path.parent / "context").is_dir():
        path = path.parent
    found = look_at_checkpoint(str(path), trusted=True)
    if found.error:
        raise UsageError(f"{path}: {found.error}")
    if (path / "weights" / "adapter_metadata.json").is_file():
        raise UsageError(
            f"{path} is a LoRA adapter; merge it into its base model first (llm.peft.merge_lora)"
        )
    if (path / "weights" / "modelopt_state").exists():
        raise UsageError(f"{path} was quantised by ModelOpt; export it with NeMo's llm.export_ckpt instead")
    return Nemo2Folder(path, context.read_config(path / "context"))


class Nemo2Sink:
    """The `weights/` of a checkpoint being written from a model's parameters."""

    def __init__(self, folder: Path, parameters: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> None:
        """Create `folder`. `config` has all fields of NeMo's configuration."""
        self.folder, self._config, self._names = folder, config, list(parameters)
        folder.mkdir(parents=True)
        places = {name: place_of(name, config) for name in parameters}
        self._stored = DcpSink(folder, stored_tensors(parameters, places))
        self._sink = MegatronSink(self._stored, places)

    def write(self, name: str, tensor: Any) -> None:
        """Write one parameter."""
        self._sink.write(name, tensor)

    def finish(self) -> None:
        """Write the rest of the checkpoint, besides the parameters, and close it."""
        import torch

        keys = [_object_key(place_of(name, self._config)) for name in extra_states(self._names)]
        self._stored.write_objects(keys, [None])  # Transformer Engine has nothing to restore then
        self._sink.finish()
        common = io.BytesIO()  # writing to a full disk, torch.save raises a RuntimeError
        torch.save(COMMON, common)
        (self.folder / "common.pt").write_bytes(common.getvalue())
        (self.folder / "metadata.json").write_text(json.dumps(BACKEND), encoding="utf-8")

    def close(self) -> None:
        """Close the files."""
        self._stored.close()


def _object_key(at: TensorPlace) -> str:
    """Return what megatron.core's ShardedObject.unique_key is: the name, the index, and the number of parts."""
    index, axes = at.index or (0,), at.axes or (1,)
    return f"{WRAPPER}{at.key}/shard_{'.'.join(map(str, index))}_{'.'.join(map(str, axes))}"
