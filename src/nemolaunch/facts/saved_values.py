"""The values of a saved plan, under the names and with the fields that jobs have today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemolaunch import catalogue
from nemolaunch.errors import UsageError
from nemolaunch.job import current_names


def saved_values(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the resolved values of a plan's JSON by field name; None if it has none.

    Plans written before some fields existed get what they stood for: the recipe's epsilon, and a decay that ended
    `constant_steps` before the last step.
    """
    values = plan.get("values")
    if not isinstance(values, dict):
        return None
    values = current_names(values)
    if values.get("decay_steps") is None and isinstance(values.get("max_steps"), int):
        values["decay_steps"] = values["max_steps"] - (values.get("constant_steps") or 0)
        values["constant_steps"] = None
    if "adam_eps" not in values:
        values["adam_eps"] = _recipe_eps(plan.get("recipe"))
    return values


def _recipe_eps(recipe: Any) -> float | None:
    try:
        return catalogue.recipe(str(recipe)).optimizer.adam_eps
    except UsageError:
        return None
