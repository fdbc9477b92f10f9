"""Values of `--set` in Megatron-Bridge's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from nemolaunch.catalogue import bridge_settings
from nemolaunch.catalogue.recipe_fields import DTYPES, converted
from nemolaunch.errors import NemolaunchError
from nemolaunch.job.settings import Setting, parsed
from nemolaunch.planning import Plan


def set_fields(config: Any, plan: Plan) -> None:
    """Set the fields that the words of `--set` name.

    Raises:
        NemolaunchError: the installed Bridge has no such field.
    """
    kinds = bridge_settings.fields_of(plan.model_row)
    for setting in map(parsed, plan.job.recipe.set):
        name, _, field = setting.path.partition(".")
        part = getattr(config, name, None)
        if part is None or field not in {each.name for each in dataclasses.fields(part)}:
            raise NemolaunchError(
                f"--set {setting.word}: the installed Megatron-Bridge has no field {setting.path}"
            )
        setattr(part, field, _value(setting, kinds.get(setting.path, "object")))


def _value(setting: Setting, kind: str) -> Any:
    """Return the value as Bridge wants it: data types as such."""
    if setting.problem:
        raise NemolaunchError(f"--set {setting.word} {setting.problem}")
    try:
        value = converted(setting.value, kind)
    except ValueError:
        return setting.value  # of a type that --force has accepted
    return getattr(torch, value) if "dtype" in kind.split("|") and value in DTYPES else value
