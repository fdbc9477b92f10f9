"""What NeMo itself says about recipes, for the fork server's process."""

from __future__ import annotations

import importlib
import inspect
import os
from typing import Any

VOCABULARY = 1000


def rendered_recipes() -> str:
    """The text of recipes.json as the installed NeMo gives it."""
    from nemolaunch.nemo2 import catalogue_dump

    return catalogue_dump.render(catalogue_dump.recipes_table())


def missing_classes(classes: dict[str, list[str]]) -> list[str]:
    """Those of the named model and config classes that NeMo lacks, or cannot convert both ways."""
    import nemo.collections.llm.gpt.model as package
    from nemo.lightning.io.mixin import ConnectorMixin

    found: dict[str, Any] = {}
    for path in os.listdir(package.__path__[0]):
        if path.endswith(".py") and path != "__init__.py":
            found.update(vars(importlib.import_module(f"{package.__name__}.{path[:-3]}")))
    lacking = [name for names in classes.values() for name in names if name not in found]
    for name in classes:
        key = str(found.get(name)) + "hf"
        if key not in ConnectorMixin._IMPORTERS or key not in ConnectorMixin._EXPORTERS:
            lacking.append(name)
    return lacking


class _Tokenizer:
    vocab_size = VOCABULARY
    eos_id = 0


def parameter_counts(models: list[tuple[str, str, dict[str, Any]]]) -> dict[str, int]:
    """Parameters of models as Megatron builds them, full size, without memory for their weights.

    `models` are names, recipes and the config fields to set.
    """
    import fiddle
    import torch
    from megatron.core import parallel_state
    from torch._subclasses.fake_tensor import FakeTensorMode

    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel()
    counts = {}
    for name, recipe, overrides in models:
        for variable in [key for key in os.environ if key.startswith("NVTE_")]:
            del os.environ[variable]  # Megatron sets them while building and refuses others' the next time
        module = importlib.import_module(f"nemo.collections.llm.recipes.{recipe}")
        config = module.pretrain_recipe(dir="runs", name=name).model.config
        config.use_cpu_initialization = True  # else every weight is drawn, also where it is not stored
        config.perform_initialization = False
        if hasattr(config, "use_transformer_engine_full_layer_spec"):
            config.use_transformer_engine_full_layer_spec = False
        for field, value in overrides.items():
            setattr(config, field, value)
        built = fiddle.build(config)
        ends = {
            key: True
            for key in ("pre_process", "post_process")
            if key in inspect.signature(built.configure_model).parameters
        }
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = built.configure_model(_Tokenizer(), **ends)
        counts[name] = sum(parameter.numel() for parameter in model.parameters())
    return counts
