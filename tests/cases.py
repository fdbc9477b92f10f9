"""Cases of a parametrised test, of which `make test` runs some and `make test-long` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(names: Iterable[str], long: Collection[str]) -> list[Any]:
    """Return the names for `parametrize`, with those in `long` marked as long."""
    return [pytest.param(name, marks=pytest.mark.long) if name in long else name for name in names]
