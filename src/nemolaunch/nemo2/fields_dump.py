"""Read the fields of NeMo's recipes, with their types, into the catalogue's `recipe_fields.json`.

Run `python -m nemolaunch.nemo2.fields_dump` where NeMo is installed, without a GPU, to rewrite that file. `--set` is
then checked without NeMo.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import typing
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue import recipe_fields
from nemolaunch.catalogue.type_words import add_dataclass, evaluated, type_word
from nemolaunch.system.atomic_files import write_text

DTYPES = ("main_grads_dtype", "main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")


def fields_table() -> dict[str, Any]:
    """Return the content of `recipe_fields.json`.

    Its keys: `classes`, with the fields that each class adds to those it extends; `roots`, the class at each path of
    a recipe; `callbacks`, the fields of callbacks that replace fields of the same name; `replaced`, what NeMo
    overwrites with fields of another part when training starts; `not_on_cpu`, what `cpu.adapt` switches off.
    """
    from nemolaunch import cpu

    cpu.install()
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig
    from nemo import lightning as nl
    from nemo.collections import llm
    from nemo.collections.llm.t5.data import PreTrainingDataModule as T5DataModule
    from nemo.lightning.pytorch.callbacks.megatron_comm_overlap import MegatronCommOverlapCallback

    roots: dict[str, Any] = {
        "trainer": nl.Trainer,
        "trainer.strategy": nl.MegatronStrategy,
        "trainer.strategy.ddp": DistributedDataParallelConfig,
        "trainer.plugins": nl.MegatronMixedPrecision,
        "optim": nl.MegatronOptimizerModule,
        "optim.config": OptimizerConfig,
        "data": llm.PreTrainingDataModule,
        "data of t5": T5DataModule,
        "log": nl.NeMoLogger,
        "log.ckpt": nl.ModelCheckpoint,
    }
    classes: dict[str, Any] = {}
    for name in sorted({recipe.config_class for recipe in catalogue.recipes()}):
        add_dataclass(classes, _config_class(llm, name))
    names = {path: "T5DataModule" if cls is T5DataModule else cls.__name__ for path, cls in roots.items()}
    for path, cls in roots.items():
        classes[names[path]] = {"extends": [], "fields": dict(sorted(_arguments(cls).items()))}
    return {
        "versions": {name: version(name) for name in ("nemo_toolkit", "megatron-core")},
        "roots": names,
        "callbacks": {"MegatronCommOverlapCallback": sorted(_arguments(MegatronCommOverlapCallback))},
        "replaced": _replaced(),
        "not_on_cpu": _not_on_cpu(),
        "classes": classes,
    }


def _config_class(llm: Any, name: str) -> type:
    """Return a model's configuration class, which NeMo does not always export."""
    found = getattr(llm, name, None)
    if found is None:
        (found,) = {cls for cls in _below(llm.GPTConfig) if cls.__name__ == name}
    return typing.cast(type, found)


def _below(cls: type) -> Iterator[type]:
    subclasses: list[type] = cls.__subclasses__()
    for sub in subclasses:
        yield sub
        yield from _below(sub)


def _replaced() -> dict[str, list[str]]:
    """Return, by part, the fields with which NeMo overwrites those of the same name elsewhere."""
    from nemo.lightning.pytorch.plugins.mixed_precision import DtypeConfig
    from nemo.lightning.pytorch.strategies.megatron_strategy import ParallelismConfig

    return {
        "trainer.strategy": sorted(field.name for field in dataclasses.fields(ParallelismConfig)),
        "trainer.plugins": sorted(field.name for field in dataclasses.fields(DtypeConfig)),
    }


def _not_on_cpu() -> list[str]:
    from nemolaunch.cpu.adapt import MODEL_FIELDS, OPTIMIZER_FIELDS

    model = [f"model.config.{name}" for name in MODEL_FIELDS]
    model.append("trainer.strategy.use_te_rng_tracker")
    return sorted([*model, *(f"optim.config.{name}" for name in (*OPTIMIZER_FIELDS, *DTYPES))])


def _arguments(cls: Any) -> dict[str, str]:
    """Return the arguments of a class with their types, including those it passes on as `**kwargs`."""
    found: dict[str, str] = {}
    for ancestor in cls.__mro__:
        if "__init__" not in ancestor.__dict__:
            continue
        function = inspect.unwrap(ancestor.__init__)
        hints = _hints(ancestor, function)
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.name != "self" and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                hint = hints.get(parameter.name, parameter.empty)
                found.setdefault(parameter.name, type_word(hint, parameter.default))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _hints(cls: type, function: Any) -> dict[str, Any]:
    """Return the annotations of a constructor; a dataclass's own are text that refers to its fields."""
    if not dataclasses.is_dataclass(cls):
        return evaluated(getattr(function, "__annotations__", {}), function.__globals__)
    found: dict[str, Any] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor.__module__ in sys.modules:
            found |= evaluated(inspect.get_annotations(ancestor), vars(sys.modules[ancestor.__module__]))
    return found


def render(table: dict[str, Any]) -> str:
    """Format `recipe_fields.json` with one line per class, for readable diffs."""
    lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table["classes"].items()]
    rest = "".join(f'"{name}": {json.dumps(value)},\n' for name, value in table.items() if name != "classes")
    return f'{{{rest}"classes": {{\n' + ",\n".join(lines) + "\n}}\n"


def main() -> None:
    """Rewrite `recipe_fields.json` from the installed NeMo."""
    write_text(recipe_fields.TABLE, render(fields_table()))


if __name__ == "__main__":
    main()
