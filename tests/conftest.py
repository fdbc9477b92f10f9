"""Fixtures that every kind of test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forkserver import ForkServer


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs functions in processes that have NeMo and the CPU backend loaded; started when first asked for."""
    server = ForkServer(tmp_path_factory.mktemp("forkserver"))
    yield server
    server.close()
