"""What a NeMo 2 checkpoint's `context/io.json` says of the training: plain values, nothing it names is imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nemolaunch.system.json_files import read_json

ATTRIBUTE = re.compile(r"Attr\(name='(\w+)'\)")
LAYOUT = (
    "tensor_model_parallel_size", "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size",
    "context_parallel_size", "expert_model_parallel_size", "expert_tensor_parallel_size",
)  # fmt: skip
# What an object is called in the table -> the part it belongs to
PARTS = {
    "megatron_strategy": "trainer",
    "trainer_": "trainer",
    "optimizer_config": "optimizer",
    "distributed_data_parallel_config": "ddp",
    "pre_training_data_module": "data",
}


def recorded(path: Path) -> dict[str, dict[str, Any]]:
    """Return the plain values of trainer and strategy, optimizer, ddp and data; empty where none are recorded."""
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS.values()}
    try:
        objects = read_json(path)["objects"]
        for name, entry in objects.items():
            part = next((part for start, part in PARTS.items() if name.startswith(start)), None)
            if part is not None and not name.startswith("trainer_context"):
                found[part].update(_values(entry))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return found


def _values(entry: Any) -> dict[str, Any]:
    values = {}
    for attribute, value in entry.get("items", ()):
        match = ATTRIBUTE.match(attribute)
        if match and value.get("type") == "leaf":
            values[match[1]] = value.get("value")
    return values
