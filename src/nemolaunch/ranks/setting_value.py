"""Values of `--set` as Megatron's configurations want them."""

from __future__ import annotations

from typing import Any

import torch

from nemolaunch.catalogue.recipe_fields import DTYPES, converted
from nemolaunch.errors import NemolaunchError
from nemolaunch.job.settings import Setting


def setting_value(setting: Setting, kind: str) -> Any:
    """Return the value for a field of a type: data types as such.

    Raises `NemolaunchError` if the word cannot be read.
    """
    if setting.problem:
        raise NemolaunchError(f"--set {setting.word} {setting.problem}")
    try:
        value = converted(setting.value, kind)
    except ValueError:
        return setting.value  # of a type that --force has accepted
    return getattr(torch, value) if "dtype" in kind.split("|") and value in DTYPES else value
