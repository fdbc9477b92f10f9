"""Runs in a fork server's rank: which fields of a recipe its compilation writes, and what settings become."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OURS = os.path.join("nemolaunch", "nemo2", "")


def rendered_fields() -> str:
    """The text of recipe_fields.json as the installed NeMo gives it."""
    from nemolaunch.nemo2 import fields_dump

    return fields_dump.render(fields_dump.fields_table())


def written(plan_files: list[str]) -> dict[str, list[str]]:
    """By plan: the paths of the fields that our own code assigned, as Fiddle's history of each field records."""
    from fiddle._src.history import add_exclude_location

    from nemolaunch.nemo2.recipe import compile_recipe
    from nemolaunch.planning import Plan

    add_exclude_location("nemo_run/config.py")  # the place is that of the caller
    found = {}
    for file in plan_files:
        recipe = compile_recipe(Plan.load(Path(file)))
        parts = ("model", "trainer", "optim", "data", "log", "resume")
        found[file] = [path for part in parts for path in _written(part, getattr(recipe, part))]
    return found


def _written(path: str, config: Any) -> Iterator[str]:
    for name, entries in config.__argument_history__.items():
        if any(OURS in entry.location.filename for entry in entries) and name != "__fn_or_cls__":
            yield f"{path}.{name}"
    for name, value in config.__arguments__.items():
        if hasattr(value, "__argument_history__"):
            yield from _written(f"{path}.{name}", value)


def lines(plan_file: str) -> list[str]:
    """The compiled recipe as text, and the types of two values."""
    from nemolaunch.nemo2.recipe import compile_recipe
    from nemolaunch.nemo2.show_recipe import recipe_lines
    from nemolaunch.planning import Plan

    return list(recipe_lines(compile_recipe(Plan.load(Path(plan_file)))))


def refused(plan_file: str) -> str:
    """The message of a plan that cannot be compiled."""
    from nemolaunch.errors import NemolaunchError
    from nemolaunch.nemo2.recipe import compile_recipe
    from nemolaunch.planning import Plan

    try:
        compile_recipe(Plan.load(Path(plan_file)))
    except NemolaunchError as error:
        return str(error)
    return ""
