"""Faults of the file in a checkpoint that describes its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.families.absurd import absurd_size


@contextmanager
def reading(path: Path, framework: str) -> Iterator[None]:
    """Turn what goes wrong while a YAML file is read and taken apart into a `NemolaunchError` that names the file."""
    import yaml

    try:
        yield
    except FileNotFoundError:
        raise NemolaunchError(
            f"{path} is missing, which describes the model; {framework} writes it with every checkpoint"
        ) from None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        yaml.YAMLError,
    ) as error:
        raise NemolaunchError(f"{path} does not describe a model: {' '.join(repr(error).split())}") from error


def refuse_absurd_sizes(path: Path, fields: Mapping[str, Any]) -> None:
    """Raise `NemolaunchError` if a size in a file is beyond any model's."""
    fault = absurd_size(fields)
    if fault:
        raise NemolaunchError(f"{path} does not describe a model: {fault}")
