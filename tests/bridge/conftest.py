"""A server that trains with Megatron-Bridge, in the environment that `make install-bridge` builds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import e2e.conftest
import pytest
from forkserver import ForkServer

data = e2e.conftest.data
PYTHON = Path(__file__).parents[2] / ".venv-bridge" / "bin" / "python"


@pytest.fixture(scope="session")
def bridge_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """The server; started on first use."""
    if not PYTHON.exists():
        pytest.skip("there is no .venv-bridge; `make install-bridge` builds it")
    server = ForkServer(tmp_path_factory.mktemp("bridge"), bridge=PYTHON)
    yield server
    server.close()
