"""`key=value` without a flag, which other launchers accept: what to type instead."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

from nemolaunch.check.setting_owners import OWNED, SAME_VALUE
from nemolaunch.job import field_name, spec_of, specs

_WORD = re.compile(r"[A-Za-z_][\w.-]*=.*", re.ASCII | re.DOTALL)


def advice(words: Iterable[str]) -> str | None:
    """Return which flags to use instead of words of the form `key=value`; None if there are none.

    Words that name existing files are left alone, and so are those whose key means nothing here: a path may contain
    an equals sign.
    """
    said = [(word, flags) for word in words if (flags := _flags(word))]
    if not said:
        return None
    names = " ".join(word for word, _ in said)
    return f"{names}: values are given with flags; use {' '.join(flags for _, flags in said)}"


def _flags(word: str) -> str | None:
    """Return the flag for one word; None if it is not a setting."""
    if not _WORD.fullmatch(word) or os.path.exists(word):
        return None
    key, _, value = word.partition("=")
    name = field_name(key)
    if name != "set" and name in {spec.name for spec in specs()}:
        spec = spec_of(name)
        if spec.kind is bool:
            off = value.lower() in ("false", "no", "off", "0")
            return f"--no-{spec.flag[2:]}" if off else spec.flag
        return f"{spec.flag} {shlex.quote(value)}"
    path = _path(key)
    if path is None:
        return None
    name = OWNED.get(path, "")
    if path.rpartition(".")[2] in (name, SAME_VALUE.get(name)) and spec_of(name).kind is not bool:
        return f"{spec_of(name).flag} {shlex.quote(value)}"
    return f"--set {shlex.quote(f'{path}={value}')}"


def _path(key: str) -> str | None:
    """Return the path of the recipe that a key means: itself, or the first field of that name; None for neither."""
    from nemolaunch.catalogue.recipe_fields import all_paths

    paths = all_paths()
    if key in paths or key.split(".")[0] in {path.split(".")[0] for path in paths}:
        return key
    return next((path for path in paths if path.rpartition(".")[2] == key), None)
