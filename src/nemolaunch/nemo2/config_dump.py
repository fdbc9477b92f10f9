"""Read the defaults of NeMo's model configurations into the checkpoint package's `nemo_configs.json`.

Run `python -m nemolaunch.nemo2.config_dump` where NeMo is installed, without a GPU, to rewrite that file.
Conversions then do not need NeMo: a checkpoint records the values that were set, and the file has the rest.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib.metadata import version
from typing import Any

from nemolaunch import catalogue
from nemolaunch.families import nemo_config
from nemolaunch.system.atomic_files import write_text

# A hundred kilobytes of JSON in each class, which every checkpoint's model.yaml contains
LEFT_OUT = "heterogeneous_layers_config_encoded_json"
# Configurations of recipes whose model class does not convert, and such a class
NOT_CONVERTED = "GPTModel"
ONLY_TRAINED = {
    "nemo.collections.llm.gpt.model.base": ("GPTConfig175B",),
    "nemo.collections.llm.gpt.model.ssm": (
        "BaseMambaConfig130M", "BaseMambaConfig370M", "BaseMambaConfig780M", "BaseMambaConfig1_3B",
        "BaseMambaConfig2_7B", "NVIDIAMambaConfig8B", "NVIDIAMambaHybridConfig8B",
    ),
}  # fmt: skip
# Defaults that depend on the machine on which the object is built, with their values in a GPU container
ON_A_GPU = {"gradient_accumulation_fusion": True, "masked_softmax_fusion": True}


def configs_table() -> dict[str, Any]:
    """Return the modules of the model classes, and for each configuration class its module, parent and defaults.

    Only defaults that differ from the parent's are included, as NeMo's `model.yaml` writes them. Classes come after
    those they extend.
    """
    from nemolaunch import cpu

    cpu.install()
    from nemo.collections import llm

    table: dict[str, Any] = {}
    models = {}
    for model, names in catalogue.hf_configs().items():
        models[model] = getattr(llm, model).__module__
        module = sys.modules[models[model]]
        for name in names:
            _add_lineage(table, getattr(module, name))
    models[NOT_CONVERTED] = getattr(llm, NOT_CONVERTED).__module__
    for module_name, names in ONLY_TRAINED.items():
        for name in names:
            _add_lineage(table, getattr(sys.modules[module_name], name))
    versions = {name: version(name) for name in ("nemo_toolkit", "megatron-core")}
    return {"versions": versions, "models": models, "configs": table}


def _lineage(config: type) -> list[type]:
    """Return the class and its ancestors, up to NeMo's most general one."""
    lineage = [config]
    while lineage[-1].__name__ not in ("GPTConfig", "SSMConfig"):
        lineage.append(next(base for base in lineage[-1].__mro__[1:] if base.__module__.startswith("nemo.")))
    return lineage


def _add_lineage(table: dict[str, Any], config: type) -> None:
    for ancestor in reversed(_lineage(config)):
        _add(table, ancestor)


def _add(table: dict[str, Any], config: type) -> None:
    if config.__name__ in table:
        return
    parent = _lineage(config)[1].__name__ if len(_lineage(config)) > 1 else None
    inherited = nemo_config.defaults(parent, table) if parent else {}
    own = _defaults(config)
    table[config.__name__] = {
        "module": config.__module__,
        "extends": parent,
        "defaults": {name: value for name, value in own.items() if inherited.get(name, ...) != value},
    }


def _defaults(config: type) -> dict[str, Any]:
    import fiddle
    import yaml
    from nemo.lightning.io.mixin import IOMixin

    holder = IOMixin.__new__(IOMixin)
    text = holder._io_dump_yaml(fiddle.Config(dict, config=fiddle.Config(config)), attrs=["config"])["config"]
    values = yaml.safe_load(text)
    del values["_target_"]
    fields = {field.name for field in dataclasses.fields(config)} - {LEFT_OUT}
    return {name: ON_A_GPU.get(name, value) for name, value in sorted(values.items()) if name in fields}


def main() -> None:
    """Rewrite `nemo_configs.json` from the installed NeMo."""
    table = configs_table()
    lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table["configs"].items()]
    rest = "".join(f'"{name}": {json.dumps(table[name])},\n' for name in ("versions", "models"))
    text = f'{{{rest}"configs": {{\n' + ",\n".join(lines) + "\n}}\n"
    write_text(nemo_config.TABLE, text)


if __name__ == "__main__":
    main()
