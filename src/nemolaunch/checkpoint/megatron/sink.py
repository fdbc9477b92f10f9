"""Write the distributed checkpoint of a Megatron model, with what Megatron-Core requires besides the parameters."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.megatron.names import MegatronSink, TensorPlace, place_of, stored_tensors
from nemolaunch.checkpoint.storage.dcp_write import DcpSink
from nemolaunch.checkpoint.storage.tensors import TensorInfo
from nemolaunch.families.param_shapes import extra_states

# megatron.core.dist_checkpointing's description of its own format
BACKEND = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


class WeightsSink:
    """The weights of a checkpoint being written from a model's parameters."""

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, TensorInfo],
        config: Mapping[str, Any],
        common: Mapping[str, Any],
        wrapper: str = "",
    ) -> None:
        """Create `folder`.

        Args:
            config: all fields of NeMo's configuration.
            common: the state that all processes of a training share.
            wrapper: the prefix of all names.
        """
        self.folder, self._config, self._common = folder, config, common
        self._names, self._wrapper = list(parameters), wrapper
        folder.mkdir(parents=True)
        places = {name: place_of(name, config, wrapper) for name in parameters}
        self._stored = DcpSink(folder, stored_tensors(parameters, places))
        self._sink = MegatronSink(self._stored, places)

    def write(self, name: str, tensor: Any) -> None:
        """Write one parameter."""
        self._sink.write(name, tensor)

    def finish(self) -> None:
        """Write the rest of the distributed checkpoint, besides the parameters, and close it."""
        states = extra_states(self._names, self._config.get("own_modules") or ())
        if self._config.get("hybrid_override_pattern"):
            states.append(
                "output_layer._extra_state"
            )  # which GPTModel removes, and the hybrid model does not
        keys = [_object_key(place_of(name, self._config, self._wrapper)) for name in states]
        self._stored.write_objects(keys, [None])  # Transformer Engine has nothing to restore then
        self._sink.finish()
        save(dict(self._common), self.folder / "common.pt")
        (self.folder / "metadata.json").write_text(json.dumps(BACKEND), encoding="utf-8")

    def close(self) -> None:
        """Close the files."""
        self._stored.close()


def save(content: Any, path: Path) -> None:
    """Write an object with torch.save, which on a full disk would raise a `RuntimeError`."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())


def _object_key(at: TensorPlace) -> str:
    """Return what megatron.core's ShardedObject.unique_key is: the name, the index, and the number of parts."""
    index, axes = at.index or (0,), at.axes or (1,)
    return f"{at.key}/shard_{'.'.join(map(str, index))}_{'.'.join(map(str, axes))}"
