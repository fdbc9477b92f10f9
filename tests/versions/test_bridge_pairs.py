"""Each pair of Megatron-Bridge and Megatron-Core in the table trains and resumes with the losses of the ordinary pair.

The pairs are laid over `.venv-bridge`, which has everything else. `make test-versions` and `make test-long` try them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON, bridge_server
from e2e.conftest import data
from e2e.jobs import planned
from forkserver import ForkServer, JobFailed
from versions.overlays import CannotDownloadError, bridge_overlay

from nemolaunch.catalogue.version_pairs import BridgePair, bridge_pairs, release
from nemolaunch.planning import Plan
from nemolaunch.run import metrics

__all__ = ["bridge_server", "data"]  # fixtures
pytestmark = pytest.mark.long
ORDINARY = ("0.6.2", "0.19.2")  # of constraints-bridge.txt
JOB: dict[str, Any] = {
    "backend": "bridge",
    "python": str(PYTHON),
    "max_steps": 6,
    "num_gpus": 2,
    "global_batch_size": 8,
    "rampup_batch_size": "4:4:8",
    "checkpoint_every": 3,
}
OTHER = {"lr": 5e-3, "weight_decay": 0.3, "max_steps": 8}


class Trained:
    """A run in one environment: killed after its first checkpoint, resumed, then continued with other flags."""

    def __init__(self, server: ForkServer, folder: Path, data: str) -> None:
        self.server, self.folder, self.data = server, folder, data
        plan = planned(folder, data, **JOB)
        with pytest.raises(JobFailed, match="-9"):
            self._train(plan, kill_after=4)
        self.releases = self._train(plan)["releases"]
        self.run = planned(folder, data, **{**JOB, **OTHER})
        self._train(self.run)
        self.rows = rows(self.run)

    def continued(self, checkpoint: Path) -> list[tuple[float, float]]:
        """The losses and gradient norms of the run's last steps, from a checkpoint of another environment."""
        folder = self.folder / "other"
        folder.mkdir()
        plan = planned(folder, self.data, resume=str(checkpoint), **{**JOB, **OTHER})
        self._train(plan)
        return rows(plan)

    def _train(self, plan: Plan, **kwargs: Any) -> dict[str, Any]:
        arguments = {"plan_file": str(plan.run.plan), **kwargs}
        return dict(self.server.run("versions.bridge_pair_job:train", arguments, nproc=2)[0])


def rows(plan: Plan) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step that counts."""
    found = [row for row in metrics.current(metrics.read(plan.run.metrics)) if "loss" in row]
    return [(row["loss"], row["grad_norm"]) for row in found]


@pytest.fixture(scope="module")
def ordinary(bridge_server: ForkServer, data: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run in the ordinary environment."""
    return Trained(bridge_server, tmp_path_factory.mktemp("ordinary"), data)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, id=str(pair))
        for pair in bridge_pairs()
        if pair.fails is None and (pair.bridge, pair.megatron) != ORDINARY
    ],
)
def test_a_pair_computes_what_the_ordinary_one_does(
    pair: BridgePair, ordinary: Trained, data: str, tmp_path: Path
) -> None:
    """The ordinary one also continues a checkpoint of the pair, and the pair one of the ordinary one, if it can.

    Before 0.19, Megatron-Core reads what ranks have in common from a file that newer releases no longer write.
    """
    server = started(pair, tmp_path / "server")
    try:
        trained = Trained(server, tmp_path, data)
        assert trained.releases == [pair.bridge, pair.megatron]
        assert trained.rows == ordinary.rows
        assert len(trained.rows) == 8
        if release(pair.megatron) >= (0, 19):
            theirs = ordinary.run.run.checkpoints / "iter_0000006"
            assert trained.continued(theirs) == ordinary.rows[6:]
        ordinary.folder = tmp_path / "back"
        ordinary.folder.mkdir()
        assert ordinary.continued(trained.run.run.checkpoints / "iter_0000006") == ordinary.rows[6:]
    finally:
        server.close()


def started(pair: BridgePair, folder: Path) -> ForkServer:
    """A server with a pair's packages. Skips where they cannot be downloaded."""
    try:
        packages = bridge_overlay(pair)
    except CannotDownloadError as error:
        pytest.skip(f"{pair} cannot be downloaded: {error}")
    return ForkServer(folder, packages, bridge=PYTHON)
