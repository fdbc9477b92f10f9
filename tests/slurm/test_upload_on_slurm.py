"""Checkpoints of a job over two nodes are in the store when it ends, also if it was put back into the queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_server import BUCKET, s3_server
from slurm.cluster import Cluster
from slurm.training import LAYOUT, Training, figures, finish

from nemolaunch.run import metrics
from nemolaunch.run.uploads import fetch, newest_complete
from nemolaunch.system import remote

pytestmark = pytest.mark.long


def test_a_requeued_job_uploads_everything(client: Cluster, training_data: Path, tmp_path: Path) -> None:
    """The second start goes on with what the first had sent, and what is fetched is what the nodes wrote."""
    with s3_server() as store:
        url = f"{BUCKET}/runs/up"
        flags = {**LAYOUT, "max_steps": 24, "checkpoint_every": 6, "upload": f"{BUCKET}/runs"}
        run = Training(client, tmp_path / "up", training_data, **flags)
        run.environment |= store.environment
        try:
            process = run.start()
            client.wait_until("a checkpoint", lambda: bool(run.run.complete_checkpoints()), 400)
            run.order(0, "sleep 600")
            client.wait_until("its copy in the store", lambda: newest_complete(url) is not None, 200)
            (first,) = remote.names_in(f"{url}/checkpoints")
            client.run("scontrol", "requeue", run.job())
            code, said = finish(process, 900)
            job = run.job()  # which uploads the last checkpoint after the run has reached its last step
            client.wait_until("the end of the job", lambda: client.state(job) == "COMPLETED", 400)
        finally:
            run.end()
        assert code == 0, said
        assert run.num_attempts() == 2
        here = run.run.complete_checkpoints()
        assert newest_complete(url) == here[-1].name
        assert {first, *(path.name for path in here)} <= set(remote.names_in(f"{url}/checkpoints"))
        got = fetch(url, tmp_path / "fetched", print)
        (newest,) = got.complete_checkpoints()
        assert _files(newest) == _files(here[-1])
        rows = [row for row in metrics.current(metrics.read(got.metrics)) if "loss" in row]
        assert [row["loss"] for row in rows] == [row[1] for row in figures(run)]
        assert len(rows) == 24


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
