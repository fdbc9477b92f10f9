"""Values of `--set` in Megatron-Bridge's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from nemolaunch.catalogue import bridge_settings
from nemolaunch.errors import NemolaunchError
from nemolaunch.job.settings import parsed
from nemolaunch.planning import Plan
from nemolaunch.ranks.setting_value import setting_value


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
        setattr(part, field, setting_value(setting, kinds.get(setting.path, "object")))
