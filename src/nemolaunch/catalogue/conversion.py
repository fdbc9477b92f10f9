"""NeMo's model and config classes that convert from and to Hugging Face checkpoints."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from nemolaunch.catalogue.names import did_you_mean
from nemolaunch.errors import UsageError


@functools.cache
def hf_configs() -> dict[str, tuple[str, ...]]:
    """Return config classes by model class: the decoders of `nemo.collections.llm` that convert both ways.

    Abstract config classes are omitted. The class only tells NeMo which converter to use; the importer reads the
    sizes from the Hugging Face checkpoint.
    """
    data = json.loads(Path(__file__).with_name("hf_configs.json").read_text(encoding="utf-8"))
    return {model: tuple(configs) for model, configs in data.items()}


def conversion_classes(model_name: str, config_name: str) -> tuple[str, str]:
    """Return the given pair if both classes exist and belong together.

    Raises:
        UsageError: a class is unknown (names the nearest), or the config belongs to another model (names it).
    """
    known = hf_configs()
    if model_name not in known:
        raise UsageError(
            f"--model-name: there is no convertible model class {model_name!r}."
            f"{did_you_mean(model_name, known)} supported_model.txt lists all."
        )
    owners = {config: model for model, configs in known.items() for config in configs}
    if config_name not in owners:
        near = did_you_mean(config_name, known[model_name]) or did_you_mean(config_name, owners)
        raise UsageError(
            f"--model-config-name: there is no config class {config_name!r}.{near}"
            " supported_config.txt lists all."
        )
    if owners[config_name] != model_name:
        raise UsageError(
            f"--model-config-name {config_name} belongs to --model-name {owners[config_name]}, not "
            f"{model_name}; configs of {model_name}: {', '.join(known[model_name])}."
        )
    return model_name, config_name
