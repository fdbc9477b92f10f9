"""Read the fields of Megatron-Bridge's configuration, with their types, into the catalogue's `bridge_settings.json`.

Run `.venv-bridge/bin/python -m nemolaunch.bridge.fields_dump`, without a GPU, to rewrite that file. `--set` is then
checked without Bridge.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from importlib.metadata import version
from typing import Any

from nemolaunch.bridge import entry
from nemolaunch.catalogue import bridge_models, bridge_settings
from nemolaunch.catalogue.type_words import evaluated, type_word
from nemolaunch.system.atomic_files import write_text


def fields_table() -> dict[str, Any]:
    """Return the content of `bridge_settings.json`.

    Its keys: `parts`, the types of fields by part of the configuration; `models`, what the class of a model adds to
    Megatron's GPT or changes in it; `precision`, the fields that the precision overwrites in other parts.
    """
    entry.prepare("cpu")
    from megatron.bridge.training import config
    from megatron.bridge.training.mixed_precision import MixedPrecisionConfig

    from nemolaunch.bridge.provider import symbol

    parts: dict[str, Any] = {
        "train": config.TrainingConfig,
        "validation": config.ValidationConfig,
        "optimizer": config.OptimizerConfig,
        "scheduler": config.SchedulerConfig,
        "ddp": config.DistributedDataParallelConfig,
        "dataset": config.GPTDatasetConfig,
        "tokenizer": config.TokenizerConfig,
        "logger": config.LoggerConfig,
        "checkpoint": config.CheckpointConfig,
        "rng": config.RNGConfig,
        "dist": config.DistributedInitConfig,
        "rerun_state_machine": config.RerunStateMachineConfig,
        "mixed_precision": MixedPrecisionConfig,
    }
    gpt = _fields(symbol(bridge_models.GPT))
    models = {}
    for name in sorted({*bridge_models.PROVIDERS.values(), bridge_models.LLAMA4} - {bridge_models.GPT}):
        own = _fields(symbol(name))
        models[name] = {field: kind for field, kind in own.items() if gpt.get(field) != kind}
    return {
        "versions": {name: version(name) for name in ("megatron-bridge", "megatron-core")},
        "precision": sorted(field.name for field in dataclasses.fields(MixedPrecisionConfig)),
        "parts": {"model": gpt, **{part: _fields(cls) for part, cls in parts.items()}},
        "models": models,
    }


def _fields(cls: type) -> dict[str, str]:
    hints: dict[str, Any] = {}
    for ancestor in reversed(cls.__mro__):
        if dataclasses.is_dataclass(ancestor):
            names = vars(sys.modules[ancestor.__module__])
            hints |= evaluated(inspect.get_annotations(ancestor), names)
    return {
        field.name: type_word(hints[field.name], field.default)
        for field in sorted(dataclasses.fields(cls), key=lambda field: field.name)
        if field.init and not field.name.startswith("_")
    }


def render(table: dict[str, Any]) -> str:
    """Format `bridge_settings.json` with one line per class, for readable diffs."""
    groups = []
    for group in ("parts", "models"):
        lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table[group].items()]
        groups.append(f"{json.dumps(group)}: {{\n" + ",\n".join(lines) + "\n}")
    rest = [f"{json.dumps(name)}: {json.dumps(table[name])}" for name in ("versions", "precision")]
    return "{" + ",\n".join([*rest, *groups]) + "}\n"


def main() -> None:
    """Rewrite `bridge_settings.json` from the installed Bridge."""
    write_text(bridge_settings.TABLE, render(fields_table()))


if __name__ == "__main__":
    main()
