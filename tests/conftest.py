"""Fixtures that every kind of test may use."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkserver import ForkServer


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs functions in processes that have NeMo and the CPU backend loaded; started when first asked for."""
    server = ForkServer(tmp_path_factory.mktemp("forkserver"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def tokens_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for what is remembered of tokenizers, shared by all tests of a session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def pytest_configure() -> None:
    """Where the tests run in the background, Ctrl-C is ignored, and what they start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


ORDER = ("unit", "golden", "nemo2", "e2e", "slurm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes seconds comes first, real trainings and a Slurm cluster last."""
    folder = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(folder).parts[0]))
