"""Read the fields of NeMo's recipes, with their types, into the catalogue's `recipe_fields.json`.

Run `python -m nemolaunch.nemo2.fields_dump` where NeMo is installed, without a GPU, to rewrite that file. `--set` is
then checked without NeMo.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from nemolaunch import catalogue
from nemolaunch.catalogue import recipe_fields
from nemolaunch.system.atomic_files import write_text

PLAIN = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", os.PathLike: "str"}
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
        _add_dataclass(classes, _config_class(llm, name))
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


def _add_dataclass(table: dict[str, Any], cls: type) -> None:
    """Add a dataclass and those it extends, each with its own fields only."""
    if cls.__name__ in table:
        return
    parents = [base for base in cls.__bases__ if dataclasses.is_dataclass(base)]
    for parent in parents:
        _add_dataclass(table, parent)
    hints = _resolved(inspect.get_annotations(cls), vars(sys.modules[cls.__module__]))
    own = [field for field in dataclasses.fields(cls) if field.init and field.name in hints]
    inherited: dict[str, str] = {}
    for parent in reversed(parents):
        inherited |= recipe_fields.fields_of(parent.__name__, table)
    fields = {field.name: type_word(hints[field.name], field.default) for field in own}
    table[cls.__name__] = {
        "extends": [parent.__name__ for parent in parents],
        "fields": {name: word for name, word in sorted(fields.items()) if inherited.get(name) != word},
    }


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
        return _resolved(getattr(function, "__annotations__", {}), function.__globals__)
    found: dict[str, Any] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor.__module__ in sys.modules:
            found |= _resolved(inspect.get_annotations(ancestor), vars(sys.modules[ancestor.__module__]))
    return found


def _resolved(annotations: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """Return annotations with text evaluated; those of types imported for type checkers only are `object`."""
    found = {}
    for name, hint in annotations.items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except (NameError, AttributeError, TypeError):
                hint = object
        found[name] = hint
    return found


def type_word(hint: Any, default: Any) -> str:
    """Return a type as in the table: alternatives separated by `|`, such as `int|null` or `list[str]`."""
    if hint is inspect.Parameter.empty:
        hint = type(default) if type(default) in PLAIN and default is not None else object
    words = list(dict.fromkeys(_alternatives(hint)))
    if default is None and "null" not in words:
        words.append("null")
    known = [word for word in words if word != "object"]
    if set(known) <= {"null"}:
        return "object"
    return "|".join(sorted(known, key=lambda word: word == "null"))


def _alternatives(hint: Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.ForwardRef) or hint is Any:
        yield "object"
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _alternatives(argument)
    elif origin is typing.Literal:
        yield from (json.dumps(value) for value in arguments)
    elif hint in (list, tuple) or origin in (list, tuple, Sequence):
        yield _sequence("tuple" if tuple in (hint, origin) else "list", arguments)
    elif hint in PLAIN:
        yield PLAIN[hint]
    elif isinstance(hint, type) and issubclass(hint, os.PathLike):
        yield "str"
    elif f"{getattr(hint, '__module__', '')}.{getattr(hint, '__name__', '')}" == "torch.dtype":
        yield "dtype"
    else:
        yield "object"


def _sequence(kind: str, arguments: Sequence[Any]) -> str:
    items = list(dict.fromkeys(word for a in arguments if a is not ... for word in _alternatives(a)))
    if items == ["object"]:
        return "object"
    return f"{kind}[{' '.join(items)}]" if items else kind


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
