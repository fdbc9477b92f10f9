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

import torch

from nemolaunch.bridge import entry
from nemolaunch.bridge.model_source import ModelSource
from nemolaunch.bridge.model_sources import MODELS
from nemolaunch.catalogue import bridge_only
from nemolaunch.catalogue.bridge_models import GEMMA4, GEMMA4_EXPERTS, GEMMA4_HEADS, PLANNED
from nemolaunch.system.atomic_files import write_text

# Fields that are a list with 0 or 1 for each layer, or a number N: of each N layers the last is the other kind -> what
# the others have
EVERY_NTH = {"linear_attention_freq": 1, "window_attn_skip_freq": 1, "no_rope_freq": 0}


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
        "layers": source.layers or _layers(found, default),
        "shape": {**_shape(source, found), "num_layers_in_last_pipeline_stage": source.last_stage},
        "fields": dict(sorted(fields.items())),
    }


def _shape(source: ModelSource, found: Any) -> dict[str, Any]:
    """Return the architecture of a model in the catalogue's terms, with the widths that Megatron derives."""
    shape = {name: plain(getattr(found, name)) for name in bridge_only.SHAPE if hasattr(found, name)}
    heads = shape["num_attention_heads"]
    shape["ffn_hidden_size"] = shape["ffn_hidden_size"] or 4 * shape["hidden_size"]
    shape["kv_channels"] = shape["kv_channels"] or shape["hidden_size"] // heads
    shape["num_query_groups"] = shape["num_query_groups"] or heads
    if shape["num_moe_experts"]:
        shape["moe_ffn_hidden_size"] = shape["moe_ffn_hidden_size"] or shape["ffn_hidden_size"]
    every = getattr(found, "window_attn_skip_freq", None)
    if every and shape["window_size"]:
        shape["interleaved_attn_pattern"] = [every - 1, 1]
    if source.provider in (GEMMA4, GEMMA4_EXPERTS):
        shape |= _of_gemma4(found, shape)
    pattern = getattr(found, "hybrid_layer_pattern", None)
    return {**shape, "kind": "mamba", "hybrid_override_pattern": pattern} if pattern else shape


def _of_gemma4(found: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """Return what Gemma 4's layers have that its configuration does not say, or under other names, or as 0."""
    heads = {
        name: getattr(found, name, None) or getattr(found, theirs, None)
        for name, theirs in GEMMA4_HEADS.items()
    }
    own = shape.get("per_layer_embed_dim") or None
    return {
        **heads,
        "post_layer_norms": True,
        "qk_layernorm": True,
        "num_kv_shared_layers": shape.get("num_kv_shared_layers") or None,
        "per_layer_embed_dim": own,
        "per_layer_embed_vocab_size": own and shape["per_layer_embed_vocab_size"],
    }


def _described(source: ModelSource) -> Any:
    """Return Bridge's configuration of a model."""
    from megatron.bridge import AutoBridge

    from nemolaunch.bridge.provider import symbol

    if source.whole:
        return symbol(source.provider)()
    # a class that is nowhere: transformers' base of all of them takes any value
    path = f"{source.module}.{source.config}" if source.module else "transformers.PreTrainedConfig"
    config = symbol(path)(**source.values)
    config.architectures = [bridge_only.architecture_of(source.config)]
    found = AutoBridge.from_hf_config(config).to_megatron_provider(load_weights=False)
    for name, value in source.settings.items():
        setattr(found, name, value)
    _shorten(found)
    if "E" not in (getattr(found, "hybrid_layer_pattern", None) or "E"):
        _without_experts(found, symbol(source.provider)())
    return found


def _without_experts(found: Any, default: Any) -> None:
    """Undo what Bridge's translation says of experts in a hybrid that has none, from defaults of transformers."""
    for field in dataclasses.fields(default):
        if field.name.startswith("moe_") or field.name == "num_moe_experts":
            setattr(found, field.name, getattr(default, field.name))


def _shorten(found: Any) -> None:
    """Replace lists of what each layer is by the period with which it repeats, which does not depend on the depth."""
    for name, ordinary in EVERY_NTH.items():
        layers = getattr(found, name, None)
        if isinstance(layers, list):
            every = layers.index(1 - ordinary) + 1
            regular = [ordinary if (layer + 1) % every else 1 - ordinary for layer in range(len(layers))]
            assert [int(layer) for layer in layers] == regular, f"{name} has irregular layers"
            setattr(found, name, every)


def _layers(found: Any, default: Any) -> str | None:
    """Return the path of the function that describes the layers, if it is not that of the class."""
    layers = getattr(found, "transformer_layer_spec", None)
    if layers is None or layers == default.transformer_layer_spec:
        return None
    function = layers.func if isinstance(layers, partial) else layers
    return f"{function.__module__}.{function.__qualname__}"


def plain(value: Any) -> Any:
    """Return a value as JSON: functions and types of numbers as in NeMo's `model.yaml`."""
    if isinstance(value, torch.dtype):
        return {"_target_": str(value), "_call_": False}
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
