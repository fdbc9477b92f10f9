"""Read models that only Megatron-Bridge has into the catalogue's `bridge_only.json`.

Run `.venv-bridge/bin/python -m nemolaunch.bridge.models_dump`, without a GPU, to rewrite that file. What a model is
comes from transformers' configuration class and from Bridge's translation of it; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from typing import Any

from nemolaunch.bridge import entry
from nemolaunch.catalogue import bridge_only
from nemolaunch.catalogue.bridge_models import GPT, PLANNED
from nemolaunch.system.atomic_files import write_text

# Name -> class of transformers, values that differ from its defaults, and the model's class in Bridge. The defaults are
# gpt-oss-120b's; those of OLMoE, but for the width of an expert, are in Bridge's class as well.
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt_oss_120b": ("GptOssConfig", {}, GPT),
    "gpt_oss_20b": ("GptOssConfig", {"num_hidden_layers": 24, "num_local_experts": 32}, GPT),
    "olmoe_7b": (
        "OlmoeConfig",
        {"intermediate_size": 1024},
        "megatron.bridge.models.olmoe.olmoe_provider.OlMoEModelProvider",
    ),
}


def models_table() -> dict[str, Any]:
    """Return the content of `bridge_only.json`: each model's class in Bridge, and the fields that differ from it."""
    entry.prepare("cpu")
    names = ("megatron-bridge", "transformers")
    return {
        "versions": {name: version(name) for name in names},
        "models": {name: _row(*given) for name, given in MODELS.items()},
    }


def _row(config_class: str, values: dict[str, Any], provider: str) -> dict[str, Any]:
    import transformers
    from megatron.bridge import AutoBridge

    from nemolaunch.bridge.provider import symbol

    config = getattr(transformers, config_class)(**values)
    config.architectures = [config_class.replace("Config", "ForCausalLM")]
    found = AutoBridge.from_hf_config(config).to_megatron_provider(load_weights=False)
    default = symbol(provider)()
    fields = {}
    for field in dataclasses.fields(default):
        value = getattr(found, field.name)
        if field.init and field.name not in PLANNED and value != getattr(default, field.name):
            fields[field.name] = _plain(value)
    whole = {name: _plain(getattr(found, name)) for name in bridge_only.SHAPE if hasattr(found, name)}
    return {"hf": config_class, "provider": provider, "shape": whole, "fields": dict(sorted(fields.items()))}


def _plain(value: Any) -> Any:
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
