"""The words of `--set`: a path into the compiled NeMo recipe, and a value as YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import UsageError

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
# YAML 1.2's scalars, and Python's None. YAML 1.1 would read `on` as true, `1e-8` as text and `010` as 8.
_NULL = re.compile(r"^(?:~|null|Null|NULL|None)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One word of `--set`.

    Attributes:
        word: as it was typed.
        path: names joined by dots, such as `optim.config.adam_eps`; the whole word if it is not of that form.
        value: None, a bool, number or text, or a list of these.
        problem: what is wrong with the form of the word, or an empty string.
    """

    word: str
    path: str
    value: Any = None
    problem: str = ""


def parsed(word: str) -> Setting:
    """Return the setting that a word describes. Never raises: what is wrong is `problem`."""
    path, equals, text = word.partition("=")
    if not equals or not _PATH.fullmatch(path):
        return Setting(word=word, path=path, problem="is not of the form PATH=VALUE")
    if not text.strip():
        return Setting(
            word=word, path=path, problem="has no value; an empty one only removes an earlier setting"
        )
    try:
        return Setting(word=word, path=path, value=_value(text))
    except ValueError as error:
        return Setting(word=word, path=path, problem=str(error))


def _value(text: str) -> Any:
    """Return the value that a text stands for; raise ValueError if it is not a YAML scalar or list of scalars."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads scalars as YAML 1.2 does."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    for tag, pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, None)
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value.replace("_", "")))
    Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ValueError("has a value that is not YAML; put text into quotes inside the word") from None
    if not _is_plain(value) and not (isinstance(value, list) and _is_plain_list(value)):
        raise ValueError("has a value that is neither text, a number, true, false, null nor a list of these")
    return value


def _is_plain(value: Any) -> bool:
    finite = not isinstance(value, float) or math.isfinite(value)  # 1e999 is not
    return value is None or (isinstance(value, bool | int | float | str) and finite)


def _is_plain_list(values: list[Any]) -> bool:
    return all(_is_plain(item) or (isinstance(item, list) and all(map(_is_plain, item))) for item in values)


def path_of(word: str) -> str:
    """Return the path of a word, with or without a value."""
    return word.partition("=")[0]


def by_path(words: Iterable[str]) -> dict[str, str]:
    """Return the values as text, by path."""
    return {path: value for path, _, value in (word.partition("=") for word in words)}


def spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's values with each setting on its own, as `set PATH`, for comparisons."""
    found = dict(values)
    words = found.pop("set", None) or ()
    return {**found, **{f"set {path}": value for path, value in by_path(words).items()}}


def merged(earlier: Iterable[str], later: Iterable[str]) -> tuple[str, ...]:
    """Return earlier settings with later ones, which replace those of the same path; `PATH=` removes one.

    Raises:
        UsageError: there is nothing to remove.
    """
    earlier, later = tuple(earlier), tuple(later)
    removed = {
        path
        for path, equals, value in (word.partition("=") for word in later)
        if path and equals and not value
    }
    unknown = removed - {path_of(word) for word in earlier}
    if unknown:
        path = min(unknown)
        raise UsageError(f"--set {path}= removes an earlier setting of {path}, but there is none")
    replaced = {path_of(word) for word in later}
    kept = [word for word in earlier if path_of(word) not in replaced]
    return (*kept, *(word for word in later if word.removesuffix("=") not in removed))
