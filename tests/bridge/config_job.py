"""What a rank of the Bridge server says about configurations, without training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


def rendered_fields() -> str:
    """The text of bridge_settings.json as the installed Bridge gives it."""
    from nemolaunch.bridge import fields_dump

    return fields_dump.render(fields_dump.fields_table())


def rendered_models() -> str:
    """The text of bridge_only.json as the installed Bridge and transformers give it."""
    from nemolaunch.bridge import models_dump

    return models_dump.render(models_dump.models_table())


def layers_of_deepseek_v4() -> str:
    """What Megatron-Core says when it is asked for the layers that Bridge's translation of DeepSeek-V4 names."""
    from megatron.bridge.models.mla_provider import MLAModelProvider
    from megatron.core.models.gpt import experimental_attention_variant_module_specs as specs

    model = MLAModelProvider(num_layers=1, hidden_size=64, num_attention_heads=4)
    model.experimental_attention_variant = "dsv4_hybrid"
    model.finalize()
    try:
        return str(specs.get_transformer_block_with_experimental_attention_variant_spec(model))
    except ValueError as error:
        return str(error)


def written(plan_files: list[str]) -> dict[str, list[str]]:
    """By plan: the paths whose values differ from Bridge's defaults and from those of the model's class."""
    from nemolaunch.bridge.config import compile_config
    from nemolaunch.planning import Plan

    found = {}
    for file in plan_files:
        plan = Plan.load(Path(file))
        config, _ = compile_config(plan)
        found[file] = [path for name, part in _parts(config) for path in _changed(name, part, plan)]
    return found


def _parts(config: Any) -> list[tuple[str, Any]]:
    names = [field.name for field in dataclasses.fields(config)]
    return [
        (name, getattr(config, name)) for name in names if dataclasses.is_dataclass(getattr(config, name))
    ]


def _changed(name: str, part: Any, plan: Any) -> list[str]:
    from nemolaunch.catalogue import bridge_models

    given = bridge_models.model_fields(plan.model_row) if name == "model" else {}
    found = []
    for field in dataclasses.fields(part):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(part, field.name)
        if field.init and field.name not in given and value is not default and value != default:
            found.append(f"{name}.{field.name}")
    return found


def values(plan_file: str, paths: list[str]) -> dict[str, str]:
    """The values that paths have in the configuration of a plan, as text."""
    from nemolaunch.bridge.config import compile_config
    from nemolaunch.planning import Plan

    config, _ = compile_config(Plan.load(Path(plan_file)))
    return {path: repr(getattr(getattr(config, path.split(".")[0]), path.split(".")[1])) for path in paths}
