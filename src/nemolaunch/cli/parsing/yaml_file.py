"""YAML files with flag names as keys: `--config`, presets, profiles of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.job import ALTERNATIVES, checked_values, spec_of
from nemolaunch.system.yaml_faults import fault


def read_yaml(path: Path, flag: str) -> dict[Any, Any]:
    """Return the mapping in a YAML file that a flag names; empty for an empty file.

    Raises:
        UsageError: it cannot be read, or is not a mapping.
    """
    content = read_any(path, flag)
    if content is not None and not isinstance(content, dict):
        raise UsageError(f"{flag} {path} must contain flag names and values, like `seq_length: 2048`")
    return content or {}


def read_any(path: Path, flag: str) -> Any:
    """Return what a YAML file that a flag names holds, whatever that is. Raise UsageError if it cannot be read."""
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), _loader())
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{flag} {path} is not YAML: {fault(error)}") from None


def _loader() -> Any:
    """Return a safe YAML loader that reads only decimal whole numbers as numbers.

    YAML 1.1 also has base 60 and octal: `time: 1:00:00` would be 3600, which Slurm takes for minutes, and
    `exclude: 010` would be 8.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """Reads as little into a text as `SafeLoader` does, less into numbers."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    whole = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", whole, list("-+0123456789"))
    return Loader


def checked_flags(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return validated values by field name, for keys spelled as flags. Raise UsageError listing all problems."""
    try:
        values = checked_values(content)
    except UsageError as error:
        raise UsageError(f"{where}{error}") from None
    refuse_alternatives(values, where)
    return values


def refuse_alternatives(values: Mapping[str, Any], where: str) -> None:
    """Raise UsageError if values set one quantity twice, in different units."""
    for group in ALTERNATIVES:
        both = [spec_of(name).flag for name in group if values.get(name) is not None]
        if len(both) > 1:
            raise UsageError(f"{where}{' and '.join(both)} set the same quantity; use only one of them")
