"""Fixtures for every kind of test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkserver import ForkServer


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A server that runs functions in processes with NeMo and the CPU stand-ins; started on first use."""
    server = ForkServer(tmp_path_factory.mktemp("forkserver"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def tokens_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A separate cache for what is remembered about tokenizers, shared by all tests of a session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def pytest_configure() -> None:
    """Restore the handler of Ctrl-C: in the background it is ignored, and child processes inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


ORDER = ("unit", "golden", "field", "nemo2", "e2e", "bridge", "versions", "containers", "slurm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run fast tests first, real trainings and the Slurm cluster last."""
    folder = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(folder).parts[0]))
