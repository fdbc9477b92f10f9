"""Preflights on real nodes: one that is really slow, one with other packages, and a chain that leaves a node out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from slurm.cluster import Cluster, why_not
from slurm.light import LightRun
from slurm.training import Training, finish

from nemolaunch.cli.commands import diagnose
from nemolaunch.preflight import result
from nemolaunch.run.attempts import attempts, expand_nodes
from nemolaunch.run.folder import RunDir, unfit_nodes


def ranks_on(cluster: Cluster, node: str) -> list[int]:
    """The measuring processes below the node's slurmd."""
    found, left = [], [cluster.processes[node].pid]
    while left:
        pid = left.pop()
        with contextlib.suppress(OSError):  # it has just ended
            if b"nemolaunch.preflight.rank" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return found


def slow_down(cluster: Cluster, node: str, begun: Path, over: threading.Event) -> None:
    """Once the ranks meet, stop those of a node nine tenths of the time, as a limit of its CPU time does."""
    while not list(begun.glob("meeting-*.json")) and not over.is_set():
        time.sleep(0.05)
    while not over.is_set():
        ranks = ranks_on(cluster, node)
        for number, pause_s in ((signal.SIGSTOP, 0.09), (signal.SIGCONT, 0.01)):
            for pid in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(pause_s)


def test_a_slow_node_is_named(client: Cluster, tmp_path: Path) -> None:
    run, over = RunDir(tmp_path / "run"), threading.Event()
    slower = threading.Thread(target=slow_down, args=(client, "n2", run.preflight, over))
    slower.start()
    command = [
        sys.executable,
        "-m",
        "nemolaunch",
        "preflight",
        "--executor",
        "slurm",
        "-P",
        "main",
        "-A",
        "root",
    ]
    command += ["-N", "2", "-G", "1", "--device", "cpu", "--gres", "none", "-I", "none"]
    try:
        done = subprocess.run(
            [*command, "--output-dir", str(run.root)],
            env=client.environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    finally:
        over.set()
        slower.join()
    assert done.returncode == 1, done.stdout + done.stderr
    found = result.load(run)
    assert found is not None
    assert [(row.node, row.num_ranks) for row in found.measured.nodes] == [("n1", 1), ("n2", 1)]
    assert [trouble.node for trouble in found.troubles if trouble.code == "slow-products"] == ["n2"]
    assert "n2" in unfit_nodes(run)
    assert "n2 multiplies matrices at" in done.stdout
    assert "--exclude" in done.stdout
    assert [row.between_bytes_per_s.keys() for row in found.measured.nodes] == [{"n2"}, {"n1"}]
    assert all(row.versions == found.measured.nodes[0].versions for row in found.measured.nodes)
    assert not any(trouble.code == "clock" for trouble in found.troubles)  # one machine has one clock


@pytest.fixture
def other_core(client: Cluster, tmp_path: Path) -> Iterator[str]:
    """The second node sees the metadata of another release of Megatron-Core."""
    found = next(path for path in distribution("megatron-core").files or () if path.name == "METADATA")
    metadata = Path(str(distribution("megatron-core").locate_file(found))).resolve()
    own = distribution("megatron-core").version
    other = tmp_path / "METADATA"
    other.write_text(metadata.read_text().replace(f"\nVersion: {own}\n", "\nVersion: 0.1.0\n", 1))
    client.inside("n2", f"mount --bind {other} {metadata}")
    yield own
    client.inside("n2", f"umount {metadata}")


@pytest.mark.long
def test_a_run_ends_before_its_first_step_and_continues_without_the_node(
    client: Cluster, training_data: Path, tmp_path: Path, other_core: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # a tolerance that only what is no measurement of speed can break
    run = Training(
        client, tmp_path / "run", training_data, preflight=True, preflight_tolerance=0.99, max_steps=2
    )
    code, said = finish(run.start())
    assert code == 1, said
    assert f"n2 has megatron-core 0.1.0, and 1 of 2 nodes have {other_core}" in said
    assert "first   rank 1 on n2" in said
    assert "[preflight]" in said
    assert "resume RUN --exclude n2" in said
    assert run.num_attempts() == 1  # it is not tried again on the same nodes
    assert not run.rows()
    assert unfit_nodes(run.run) == ("n2",)
    assert diagnose.main([str(run.run.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failure"]["cause"] == "preflight"

    run.flags |= {"num_nodes": 1, "exclude_slow": True}
    code, said = finish(run.start())
    assert code == 0, said
    assert "preflight-excludes" in said
    assert {attempt.nodes for attempt in attempts(run.run)} == {"n1"}
    assert run.step() == 2
    found = result.load(run.run)
    assert found is not None
    assert [row.node for row in found.measured.nodes] == ["n1"]
    assert found.unfit == ()
    assert unfit_nodes(run.run) == ("n2",)  # it has not been measured again


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Cluster]:
    """A cluster in which a job of two nodes can leave one out."""
    if reason := why_not():
        pytest.skip(f"no Slurm cluster: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm3-"))
    running = Cluster(folder, num_nodes=3, accounting=False)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_successor_leaves_the_node_out(three_nodes: Cluster, tmp_path: Path) -> None:
    run = LightRun(
        three_nodes, tmp_path / "run", ["unfit n1", "unfit n1", "finish"], preflight=True, exclude_slow=True
    )
    run.submit()
    run.wait_until_over()
    assert [set(expand_nodes(each.nodes)) for each in attempts(run.run)][1:] == [{"n2", "n3"}, {"n2", "n3"}]
    assert run.run.finished.exists()
    assert len(set(run.attempts())) == 3  # a successor each time, never the same job again
    assert "starts without n1" in run.output()


def test_without_the_flag_the_chain_ends(three_nodes: Cluster, tmp_path: Path) -> None:
    run = LightRun(three_nodes, tmp_path / "run", ["unfit n1", "finish"], preflight=True)
    run.submit()
    run.wait_until_over()
    assert len(run.attempts()) == 1
    assert "slow or sick nodes: n1; continue on others" in run.run.slurm_stopped.read_text()


def test_too_few_nodes_are_left(three_nodes: Cluster, tmp_path: Path) -> None:
    run = LightRun(
        three_nodes, tmp_path / "run", ["unfit n1,n2", "finish"], preflight=True, exclude_slow=True
    )
    run.submit()
    run.wait_until_over()  # Slurm would queue a job of two nodes on the one that is left for ever
    assert len(run.attempts()) == 1
    assert "too few nodes are left without n1,n2" in run.output()
    assert "slow or sick nodes: n1,n2" in run.run.slurm_stopped.read_text()
