"""Read the defaults of transformers' configuration classes into `families/hf_defaults.json`.

Run `python -m nemolaunch.checkpoint.hf.defaults_dump` with the transformers of constraints.txt to rewrite that file.
A `config.json` does not have to state what its class defaults to.
"""

from __future__ import annotations

import inspect
import json
from importlib.metadata import version
from typing import Any

from nemolaunch.families.config_json import DEFAULTS, HARMLESS
from nemolaunch.families.registry import FAMILIES
from nemolaunch.system.atomic_files import write_text


def defaults_table() -> dict[str, Any]:
    """Return, by `model_type`, the defaults that are neither None nor of harmless keys."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    table = {}
    for name in FAMILIES:
        if name not in CONFIG_MAPPING:
            continue  # its class comes with the checkpoints
        kind = getattr(CONFIG_MAPPING[name], "sub_configs", {}).get("text_config", CONFIG_MAPPING[name])
        own = inspect.signature(kind.__init__).parameters.values()
        table[name] = {
            one.name: one.default
            for one in own
            if one.default not in (None, inspect.Parameter.empty) and one.name not in HARMLESS
        }
        tied = kind().tie_word_embeddings
        table[name]["tie_word_embeddings"] = tied
    return {"versions": {"transformers": version("transformers")}, "defaults": table}


if __name__ == "__main__":
    write_text(DEFAULTS, json.dumps(defaults_table(), indent=1) + "\n")
