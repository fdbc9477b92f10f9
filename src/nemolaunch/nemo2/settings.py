"""Values of `--set` in a compiled recipe."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import nemo_run as run

from nemolaunch.catalogue import Recipe
from nemolaunch.catalogue.recipe_fields import callback_fields, recipe_fields
from nemolaunch.errors import NemolaunchError
from nemolaunch.job.settings import parsed
from nemolaunch.nemo2 import kernels
from nemolaunch.ranks.setting_value import setting_value


def set_fields(recipe: run.Partial, row: Recipe, words: Iterable[str]) -> None:
    """Set the fields that the words of `--set` name.

    Raises:
        NemolaunchError: the installed NeMo has no such field.
    """
    for setting in map(parsed, words):
        part, _, name = setting.path.rpartition(".")
        value = setting_value(setting, recipe_fields(row).get(setting.path, "object"))
        try:
            setattr(_part(recipe, part), name, value)
        except (AttributeError, TypeError, ValueError) as error:
            nemo = version("nemo_toolkit")
            raise NemolaunchError(
                f"--set {setting.word}: the installed NeMo {nemo} does not accept this: {error}"
            ) from None
        # a callback would replace the value with its own when training starts
        for callback in recipe.trainer.callbacks or []:
            if name in callback_fields(callback.__fn_or_cls__.__name__):
                setattr(callback, name, value)


def _part(recipe: run.Partial, path: str) -> Any:
    """Return the part of the recipe at a path."""
    if path == "trainer.strategy.ddp":
        return kernels.ddp_of(recipe)
    part: Any = recipe
    for name in path.split("."):
        part = getattr(part, name)
    return part
