"""NVIDIA's NeMo containers and the releases they hold. What is not published is None."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "containers.json"
# As Docker, enroot (`#` after the registry) and files written by `enroot import` spell it
_IMAGE = re.compile(
    r"(?:(?:docker|oras)://)?nvcr\.io[/#]nvidia/nemo(?::(?P<tag>[\w.-]+))?(?:@sha256:\w+)?"
    r"|(?:.*/)?nvidia\+nemo\+(?P<file>[\w.-]+)\.sqsh"
)
_MONTH = re.compile(r"(\d\d)\.(\d\d)(?:\.\d\d)?")


@dataclass(frozen=True, kw_only=True)
class Container:
    """A tag of NVIDIA's NeMo container. Patch releases of a month, such as 26.02.01, have the month's versions.

    Attributes:
        nemo, megatron, transformer_engine, megatron_bridge, nemo_run, torch, cuda, python: releases; None if unknown.
        nemo2: whether it can train NeMo 2 recipes, which later releases no longer have.
        source: where the releases are published.
    """

    tag: str
    nemo: str | None
    megatron: str | None
    transformer_engine: str | None
    megatron_bridge: str | None
    nemo_run: str | None
    torch: str | None
    cuda: str | None
    python: str | None
    nemo2: bool
    source: str

    @property
    def image(self) -> str:
        """The image in NVIDIA's registry."""
        return f"{_table()['repository']}:{self.tag}"


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(_FILE.read_text(encoding="utf-8")))


@functools.cache
def containers() -> tuple[Container, ...]:
    """Return all known containers, oldest first."""
    sources = _table()["sources"]
    return tuple(Container(**{**row, "source": sources[row["source"]]}) for row in _table()["containers"])


def nemo_tag(image: str) -> str | None:
    """Return the tag of an image of NVIDIA's NeMo container, `latest` without one; None for any other image."""
    found = _IMAGE.fullmatch(image.strip())
    return None if found is None else found["tag"] or found["file"] or "latest"


def container(tag: str) -> Container | None:
    """Return the container of a tag, or of the month of a patch release; None if it is not known."""
    month = _MONTH.fullmatch(tag)
    name = f"{month[1]}.{month[2]}" if month else tag
    return next((one for one in containers() if one.tag == name), None)


def newest_with_nemo2() -> Container:
    """Return the newest container that trains NeMo 2 recipes and whose releases are known."""
    return [one for one in containers() if one.nemo2 and one.nemo][-1]


def nearest_known(tag: str) -> Container:
    """Return the container with known releases of NeMo 2 whose month is nearest to that of a tag.

    It is the newest one if the tag has no month.
    """
    known = [one for one in containers() if one.nemo2 and one.nemo and one.megatron]
    month = re.match(r"(\d\d)\.(\d\d)", tag)
    return min(known, key=lambda one: abs(_months(one.tag) - _months(tag))) if month else known[-1]


def _months(tag: str) -> int:
    year, month = tag.split(".")[:2]
    return int(year) * 12 + int(month)
