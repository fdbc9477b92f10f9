"""The compiled recipe of a plan as text: `python -m nemolaunch.nemo2.show_recipe PLAN OUTPUT` writes it to a file.

The program runs in a process of its own, since importing NeMo takes ten seconds and prints messages.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nemolaunch.catalogue.recipe_fields import replaced_by
from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan

QUIET = {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
PARTS = ("model", "trainer", "optim", "data", "log", "resume")


def recipe_text(plan: Plan) -> str:
    """Return one line per field of the compiled recipe, spelt as for `--set`.

    Raises:
        NemolaunchError: NeMo is not installed, or the plan cannot be compiled.
    """
    if importlib.util.find_spec("nemo") is None:
        raise NemolaunchError(
            f"--show-recipe compiles the recipe with NeMo, which is not installed in {sys.executable}"
        )
    with tempfile.TemporaryDirectory(prefix="nemolaunch-recipe-") as folder:
        file, output = plan.save(Path(folder, "plan.json")), Path(folder, "recipe.txt")
        done = subprocess.run(
            [sys.executable, "-m", "nemolaunch.nemo2.show_recipe", str(file), str(output)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **QUIET},
            check=False,
        )
        if done.returncode:
            lines = done.stdout.strip().splitlines() or ["no message"]
            raise NemolaunchError(f"the recipe could not be compiled: {lines[-1]}")
        return output.read_text(encoding="utf-8")


def recipe_lines(recipe: Any) -> Iterator[str]:
    """Yield `PATH = VALUE` for every field of a recipe, including those that keep their class's default."""
    for part in PARTS:
        value = getattr(recipe, part, None)
        if value is not None:
            yield from _lines(part, value)


def _lines(path: str, value: Any) -> Iterator[str]:
    if hasattr(value, "__fn_or_cls__"):
        yield f"{path}: {value.__fn_or_cls__.__name__}"
        for name, (field, is_default) in _fields(value).items():
            source = replaced_by(f"{path}.{name}")
            if source is not None:
                yield f"{path}.{name}: replaced by {source.rpartition('.')[0]} when training starts"
            elif is_default:
                yield f"{path}.{name} = {_word(field)}  (default)"
            else:
                yield from _lines(f"{path}.{name}", field)
    elif isinstance(value, list) and any(hasattr(item, "__fn_or_cls__") for item in value):
        for number, item in enumerate(value):
            yield from _lines(f"{path}[{number}]", item)
    else:
        yield f"{path} = {_word(value)}"


def _fields(config: Any) -> dict[str, tuple[Any, bool]]:
    """Return the fields of a config by name, each with whether it keeps its default."""
    given = {name: (value, False) for name, value in config.__arguments__.items()}
    try:
        parameters = inspect.signature(config.__fn_or_cls__).parameters
    except ValueError:  # a class written in C
        parameters = MappingProxyType({})
    defaults = {
        name: (parameter.default, True)
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty and not repr(parameter.default).startswith("<factory")
    }
    return dict(sorted({**defaults, **given}.items()))


def _word(value: Any) -> str:
    """Return a value as `--set` takes it, if it can be written."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_word, value))}]"
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "__name__"):
        return str(value.__name__)
    return str(value).removeprefix("torch.") or '""'


def main(plan_file: str, output: str) -> None:
    """Write the recipe of a plan to a file."""
    from nemolaunch.nemo2.entry import adapted_recipe

    recipe, left_out = adapted_recipe(Plan.load(Path(plan_file)))
    lines = [*recipe_lines(recipe), *left_out]
    Path(output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
