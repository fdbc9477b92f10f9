"""Which files of a model folder hold its weights: those that transformers would load, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.checkpoint.storage.adapters import adapter_in
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system.json_files import read_json
from nemolaunch.trust.links import check_within, named_file

# In the order in which transformers looks for them (modeling_utils._get_resolved_checkpoint_files)
CANDIDATES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX_ENDING = ".index.json"
EXPLICIT = "transformers_weights"  # a field of config.json that names another file
# Every form in which a folder can hold weights beside those that are loaded
WEIGHT_PATTERNS = (
    "*.safetensors", "pytorch_model*.bin", "consolidated*.pth", "*.gguf", "tf_model*.h5", "flax_model*.msgpack",
    "*.safetensors.index*.json", "pytorch_model.bin.index*.json",
)  # fmt: skip
OTHER_FORMATS = {
    ".gguf": "GGUF",
    ".h5": "TensorFlow's format",
    ".msgpack": "Flax's format",
    ".pth": "Meta's format",
}
SHOWN = 4


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a model folder.

    Attributes:
        paths: the files, in order.
        index: the tensors by name that their index lists, with the file of each; None without an index.
        index_name: the name of that index.
        ignored: the names of other weight files in the folder, which are not read.
    """

    paths: tuple[Path, ...] = ()
    index: Mapping[str, str] | None = None
    index_name: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """What to tell the user about the choice: one sentence if the folder has other weight files."""
        if not self.ignored:
            return []
        read = self.index_name or self.paths[0].name
        shown = ", ".join(self.ignored[:SHOWN]) + (", …" if len(self.ignored) > SHOWN else "")
        return [
            f"weights are read from {read}, as transformers does; also in the folder, but not read: {shown}"
        ]


def find_weights(folder: Path, config: Mapping[str, Any]) -> WeightFiles:
    """Return the weight files of a folder with this `config.json`.

    Raises:
        UsageError: it has no weights that transformers would load; says what it has instead.
        NemolaunchError: its index is damaged, or names files that are missing.
    """
    adapter = adapter_in(folder)
    if adapter:
        raise UsageError(adapter)
    explicit = config.get(EXPLICIT)
    if explicit:
        named_file(folder, str(explicit), folder / "config.json")
    names = (str(explicit),) if explicit else CANDIDATES
    present = [name for name in names if (folder / name).is_file()]
    if not present:
        raise UsageError(_nothing_to_read(folder, names))
    chosen = present[0]
    check_within(folder / chosen, folder)
    if not chosen.endswith(INDEX_ENDING):
        return WeightFiles((folder / chosen,), ignored=_others(folder, {chosen}))
    index = _read_index(folder / chosen)
    shards = sorted(set(index.values()))
    for shard in shards:
        named_file(folder, shard, folder / chosen)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        hint = f". To read {present[1]} instead, delete {chosen}" if len(present) > 1 else ""
        raise NemolaunchError(
            f"{folder} is incomplete: {chosen} lists {len(shards)} weight files, of which {len(missing)} are missing: "
            f"{', '.join(missing[:SHOWN])}{hint}"
        )
    paths = tuple(folder / shard for shard in shards)
    return WeightFiles(paths, index, chosen, _others(folder, {chosen, *shards}))


def _read_index(path: Path) -> dict[str, str]:
    try:
        content = read_json(path)
    except OSError as error:
        raise NemolaunchError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise NemolaunchError(f"{path} is not valid JSON: {error}") from error
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed or not all(isinstance(v, str) for v in listed.values()):
        raise NemolaunchError(f"{path} is damaged: its weight_map does not name the file of each tensor")
    return listed


def _others(folder: Path, read: set[str]) -> tuple[str, ...]:
    found = {path.name for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern)}
    return tuple(sorted(found - read))


def _nothing_to_read(folder: Path, names: tuple[str, ...]) -> str:
    """Say that a folder has no weights, and what it has that could be taken for them."""
    text = f"{folder} has no weights: none of {', '.join(names)}"
    others = _others(folder, set())
    if not others:
        return text
    text += f". It has {', '.join(others[:SHOWN])}{', …' if len(others) > SHOWN else ''}"
    other = next((OTHER_FORMATS[ending] for ending in OTHER_FORMATS if others[0].endswith(ending)), None)
    if other:
        return f"{text}: save the model with transformers' save_pretrained first, since {other} is not read"
    if any("-of-" in name for name in others):
        return f"{text}: download or copy their index too, which says which tensor is in which file"
    return (
        f"{text}: rename them if they are the model's weights, since transformers does not load these names"
    )
