"""Read the defaults of Bridge's model configurations into the families' `bridge_configs.json`.

Run `.venv-bridge/bin/python -m nemolaunch.bridge.configs_dump`, without a GPU, to rewrite that file. Conversions of
models that only Bridge has then do not need it.
"""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from typing import Any

from nemolaunch.bridge import entry
from nemolaunch.catalogue.bridge_models import PLANNED
from nemolaunch.families import nemo_config
from nemolaunch.families.bridge_classes import CLASSES
from nemolaunch.families.computed_fields import is_computed
from nemolaunch.system.atomic_files import write_text

# What conversions write besides what decides what a model computes
DESCRIBING = {
    "seq_length", "vocab_size", "bf16", "fp16", "init_method_std", "moe_aux_loss_coeff",
    "hetereogenous_dist_checkpoint",
}  # fmt: skip


def configs_table() -> dict[str, Any]:
    """Return the module of each class, and the defaults that describe a model, as NeMo's `model.yaml` writes them."""
    entry.prepare("cpu")
    from nemolaunch.bridge.models_dump import plain
    from nemolaunch.bridge.provider import symbol

    rows = {}
    for path in CLASSES:
        module, _, name = path.rpartition(".")
        default = symbol(path)()
        names = sorted(field.name for field in dataclasses.fields(default) if field.init)
        kept = {
            field: plain(getattr(default, field))
            for field in names
            if field in DESCRIBING or (is_computed(field) and field not in PLANNED)
        }
        rows[name] = {"module": module, "extends": None, "defaults": kept}
    return {"versions": {"megatron-bridge": version("megatron-bridge")}, "configs": rows}


def render(table: dict[str, Any]) -> str:
    """Format `bridge_configs.json` with one line per class."""
    lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table["configs"].items()]
    return f'{{"versions": {json.dumps(table["versions"])},\n"configs": {{\n' + ",\n".join(lines) + "\n}}\n"


if __name__ == "__main__":
    write_text(nemo_config.BRIDGE_TABLE, render(configs_table()))
