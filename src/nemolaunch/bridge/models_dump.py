"""Read models that only Megatron-Bridge has into the catalogue's `bridge_only.json`.

Run `.venv-bridge/bin/python -m nemolaunch.bridge.models_dump`, without a GPU, to rewrite that file. What a model is
comes from `model_sources` and from Bridge's translation of it; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from importlib.metadata import version
from typing import Any

from nemolaunch.bridge import entry
from nemolaunch.bridge.model_sources import MODELS, ModelSource
from nemolaunch.catalogue import bridge_only
from nemolaunch.catalogue.bridge_models import PLANNED
from nemolaunch.system.atomic_files import write_text


def models_table() -> dict[str, Any]:
    """Return the content of `bridge_only.json`: each model's class in Bridge, and the fields that differ from it."""
    entry.prepare("cpu")
    names = ("megatron-bridge", "transformers")
    return {
        "versions": {name: version(name) for name in names},
        "models": {name: _row(source) for name, source in MODELS.items()},
    }


def _row(source: ModelSource) -> dict[str, Any]:
    from nemolaunch.bridge.provider import symbol

    found, default = _described(source), symbol(source.provider)()
    fields = {}
    for field in dataclasses.fields(default):
        value = getattr(found, field.name)
        if field.init and field.name not in PLANNED and value != getattr(default, field.name):
            fields[field.name] = plain(value)
    return {
        "hf": source.config,
        "provider": source.provider,
        "layers": _layers(found, default),
        "shape": {**_shape(found), "num_layers_in_last_pipeline_stage": source.last_stage},
        "fields": dict(sorted(fields.items())),
    }


def _shape(found: Any) -> dict[str, Any]:
    """Return the architecture of a model in the catalogue's terms, with the widths that Megatron derives."""
    shape = {name: plain(getattr(found, name)) for name in bridge_only.SHAPE if hasattr(found, name)}
    shape["ffn_hidden_size"] = shape["ffn_hidden_size"] or 4 * shape["hidden_size"]
    if shape["num_moe_experts"]:
        shape["moe_ffn_hidden_size"] = shape["moe_ffn_hidden_size"] or shape["ffn_hidden_size"]
    pattern = getattr(found, "hybrid_layer_pattern", None)
    return {**shape, "kind": "mamba", "hybrid_override_pattern": pattern} if pattern else shape


def _described(source: ModelSource) -> Any:
    """Return Bridge's configuration of a model."""
    import transformers
    from megatron.bridge import AutoBridge

    config = getattr(transformers, source.config)(**source.values)
    config.architectures = [bridge_only.architecture_of(source.config)]
    found = AutoBridge.from_hf_config(config).to_megatron_provider(load_weights=False)
    linear = getattr(found, "linear_attention_freq", None)
    if linear:  # one number, which does not depend on the depth
        found.linear_attention_freq = every = linear.index(0) + 1
        assert linear == [int((layer + 1) % every != 0) for layer in range(len(linear))], "irregular layers"
    return found


def _layers(found: Any, default: Any) -> str | None:
    """Return the path of the function that describes the layers, if it is not that of the class."""
    layers = getattr(found, "transformer_layer_spec", None)
    if layers is None or layers == default.transformer_layer_spec:
        return None
    function = layers.func if isinstance(layers, partial) else layers
    return f"{function.__module__}.{function.__qualname__}"


def plain(value: Any) -> Any:
    """Return a value as JSON: functions as in NeMo's `model.yaml`."""
    if callable(value):
        return {"_target_": f"{value.__module__}.{value.__qualname__}", "_call_": False}
    return list(value) if isinstance(value, tuple) else value


def render(table: dict[str, Any]) -> str:
    """Format `bridge_only.json` with one line per model."""
    lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table["models"].items()]
    return f'{{"versions": {json.dumps(table["versions"])},\n"models": {{\n' + ",\n".join(lines) + "\n}}\n"


def main() -> None:
    """Rewrite `bridge_only.json` from the installed Bridge and transformers."""
    write_text(bridge_only.TABLE, render(models_table()))


if __name__ == "__main__":
    main()
