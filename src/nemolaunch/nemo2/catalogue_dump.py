"""Read NeMo's recipes into the catalogue's `recipes.json`, without building any model.

Run `python -m nemolaunch.nemo2.catalogue_dump` where NeMo is installed to rewrite that file.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue.architecture import Architecture
from nemolaunch.system.atomic_files import write_text

PARALLELISM = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "context_parallel_size",
    "expert_model_parallel_size",
    "expert_tensor_parallel_size",
    "sequence_parallel",
)
# The size in a recipe's name is its first part like 8b, 1p5b, e16, 8x7b; some families name sizes differently.
SIZE = re.compile(r"_(?:\d+(?:[xp_]\d+)*[bm]?|e\d+|base|mini|lite|v\d)(?:_|$)")
KINDS = {"SSMConfig": "mamba", "HyenaConfig": "hyena", "BertConfig": "bert", "T5Config": "t5"}
SPLIT_ENDINGS = ("_pipeline_stage", "_pipeline_split")
MISSING = object()


def field_value(config: Any, name: str) -> Any:
    """Return what a `run.Config` passes for a dataclass field: the value set, else the class's default."""
    try:
        return getattr(config, name)
    except (ValueError, AttributeError):
        for field in dataclasses.fields(config.__fn_or_cls__):
            if field.name == name and field.default_factory is not dataclasses.MISSING:
                return field.default_factory()
        return MISSING


def activation_name(config: Any) -> str:
    """Return the name of the activation. NemotronH's is a lambda that squares the result of relu."""
    name = field_value(config, "activation_func").__name__
    return "squared_relu" if name == "<lambda>" else name


def precision_of(trainer: Any) -> str:
    """Return the setting of the precision plugin, which recipes give alone or in a list."""
    plugins = trainer.plugins if isinstance(trainer.plugins, list) else [trainer.plugins]
    return str(next(plugin.precision for plugin in plugins if hasattr(plugin, "precision")))


def moment_bytes(optimizer: Any) -> int | None:
    """Return the bytes of Adam's two moments with the precision-aware optimizer; None without it."""
    if not field_value(optimizer, "use_precision_aware_optimizer"):
        return None
    return sum(field_value(optimizer, name).itemsize for name in ("exp_avg_dtype", "exp_avg_sq_dtype"))


def optimizer_of(recipe: Any) -> dict[str, Any]:
    """Return the optimizer's settings and the warmup. NeMo computes `min_lr` as a product, hence the rounding."""
    names = ("lr", "weight_decay", "adam_beta1", "adam_beta2", "adam_eps", "clip_grad")
    schedule = recipe.optim.lr_scheduler
    return {
        **{name: field_value(recipe.optim.config, name) for name in names},
        "min_lr": float(f"{schedule.min_lr:.12g}"),
        "warmup_steps": schedule.warmup_steps,
    }


def overlaps(recipe: Any) -> dict[str, bool]:
    """Return which communication the recipe's gradient buffers overlap."""
    ddp = getattr(recipe.trainer.strategy, "ddp", None)
    names = ("overlap_grad_reduce", "overlap_param_gather")
    return {name: hasattr(ddp, "__fn_or_cls__") and field_value(ddp, name) is True for name in names}


def _by_family(config_class: type) -> dict[str, Any]:
    """Return values that only NeMo's code contains: the kind of model; norms and windows of Gemma's layer specs."""
    ancestors = [ancestor.__name__ for ancestor in config_class.__mro__]
    values: dict[str, Any] = {
        "kind": next((kind for name, kind in KINDS.items() if name in ancestors), "gpt"),
        "post_layer_norms": bool({"Gemma2Config", "Gemma3Config"} & set(ancestors)),
    }
    if values["kind"] in ("mamba", "hyena"):  # their configure_model always takes the tokenizer's
        values["vocab_size"] = None
    if "Gemma2Config" in ancestors:
        values["interleaved_attn_pattern"] = [1, 1]
    if "Gemma3Config" in ancestors:
        values["qk_layernorm"] = True
    return values


def architecture_of(config: Any) -> dict[str, Any]:
    """Return the `Architecture` fields of a model config, including those that Megatron derives."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Architecture):
        value = field_value(config, field.name)
        if value is not MISSING:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    values["activation_func"] = activation_name(config)
    values.update(_by_family(config.__fn_or_cls__))
    # The three defaults of megatron.core TransformerConfig.__post_init__.
    if values["ffn_hidden_size"] is None:
        values["ffn_hidden_size"] = 4 * values["hidden_size"]
    if values["kv_channels"] is None:
        values["kv_channels"] = values["hidden_size"] // values["num_attention_heads"]
    if values["num_query_groups"] is None:
        values["num_query_groups"] = values["num_attention_heads"]
    if values["num_moe_experts"] is not None and values["moe_ffn_hidden_size"] is None:
        values["moe_ffn_hidden_size"] = values["ffn_hidden_size"]
    defaults = {field.name: field.default for field in dataclasses.fields(Architecture)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def _pipeline_split(strategy: Any) -> dict[str, Any]:
    """Return the recipe's uneven split of layers over pipeline stages, which is set on the strategy."""
    names = [field.name for field in dataclasses.fields(Architecture) if field.name.endswith(SPLIT_ENDINGS)]
    values = {name: getattr(strategy, name, None) for name in names}
    return {name: value for name, value in values.items() if value}


def recipe_row(name: str, module: Any) -> dict[str, Any]:
    """Return one recipe with its own defaults. Raise NotImplementedError if NeMo's function does."""
    recipe = module.pretrain_recipe(dir="runs", name=name)
    strategy, data, trainer = recipe.trainer.strategy, recipe.data, recipe.trainer
    config, model_class = recipe.model.config, recipe.model.__fn_or_cls__
    from nemo.lightning.io.mixin import ConnectorMixin

    return {
        "name": name,
        "family": SIZE.split(name)[0],
        "model_class": model_class.__name__,
        "config_class": config.__fn_or_cls__.__name__,
        **{field: getattr(strategy, field, None) for field in PARALLELISM},
        "num_nodes": trainer.num_nodes,
        "num_gpus_per_node": trainer.devices,
        "global_batch_size": data.global_batch_size,
        "micro_batch_size": data.micro_batch_size,
        "seq_length": data.seq_length,
        "max_steps": trainer.max_steps,
        "val_check_interval": trainer.val_check_interval,
        "pipeline_dtype_set": getattr(strategy, "pipeline_dtype", None) is not None,
        "precision": precision_of(trainer),
        **{
            f"recompute_{field}": field_value(config, f"recompute_{field}")
            for field in ("granularity", "method", "num_layers", "modules")
        },
        "optimizer": optimizer_of(recipe),
        "moment_bytes": moment_bytes(recipe.optim.config),
        "attention_backend": field_value(config, "attention_backend").name,
        **overlaps(recipe),
        "callbacks": [callback.__fn_or_cls__.__name__ for callback in trainer.callbacks or []],
        "performance_mode": "performance_mode" in inspect.signature(module.pretrain_recipe).parameters,
        "finetune": hasattr(module, "finetune_recipe"),
        "hf_import": str(model_class) + "hf" in ConnectorMixin._IMPORTERS,
        "hf_export": str(model_class) + "hf" in ConnectorMixin._EXPORTERS,
        "architecture": {**architecture_of(config), **_pipeline_split(strategy)},
    }


def recipes_table() -> dict[str, Any]:
    """Return the content of `recipes.json`."""
    import nemo.collections.llm.recipes as package

    table: dict[str, Any] = {
        "versions": {name: version(name) for name in ("nemo_toolkit", "megatron-core")},
        "recipes": [],
        "finetune_only": [],
        "not_implemented": {},
        "helpers": [],
    }
    for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        module = importlib.import_module(f"{package.__name__}.{name}")
        if hasattr(module, "pretrain_recipe"):
            try:
                table["recipes"].append(recipe_row(name, module))
            except NotImplementedError as error:
                table["not_implemented"][name] = str(error)
        elif hasattr(module, "finetune_recipe"):
            table["finetune_only"].append(name)
        else:
            table["helpers"].append(name)
    return table


def render(table: dict[str, Any]) -> str:
    """Format `recipes.json` with one line of defaults and one of architecture per recipe, for readable diffs."""
    rows = []
    for row in table["recipes"]:
        defaults = json.dumps({key: value for key, value in row.items() if key != "architecture"})
        rows.append(f'{defaults[:-1]},\n "architecture": {json.dumps(row["architecture"])}}}')
    rest = json.dumps({key: value for key, value in table.items() if key != "recipes"}, indent=1)
    return rest[: rest.rindex("\n}")] + ',\n"recipes": [\n' + ",\n".join(rows) + "\n]}\n"


def main() -> None:
    """Rewrite `recipes.json` from the installed NeMo."""
    folder = Path(catalogue.__file__).parent
    write_text(folder / "recipes.json", render(recipes_table()))


if __name__ == "__main__":
    main()
