"""One W&B run over all starts of a run, online and offline; and no secret in anything that is written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm.cluster import Cluster
from slurm.training import LAYOUT, Training, finish
from slurm.wandb_server import WandbServer

pytestmark = pytest.mark.long
SECRETS = {"HF_TOKEN": "hf_canary5wJ2vQ8x", "WANDB_API_KEY": "canary7Kd93hRz".ljust(40, "x")}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    made = WandbServer()
    yield made
    made.close()


def start_twice(cluster: Cluster, data: Path, tmp_path: Path, **environment: str) -> tuple[Training, str]:
    """A run whose second rank ends once on the way; its own home and temporary folder lie beside it."""
    run = Training(
        cluster, tmp_path / "run", data, **LAYOUT, wandb=True, wandb_project="project", max_steps=12
    )
    for name in ("HOME", "TMPDIR"):
        (tmp_path / name).mkdir()
        environment[name] = str(tmp_path / name)
    run.environment |= environment
    process = run.start()
    run.wait_for_step(6)
    run.order(1, "exit 7")
    code, said = finish(process)
    assert code == 0, said
    assert run.num_attempts() == 2
    return run, said


def test_restarts_go_on_with_the_same_run_and_write_no_secret(
    client: Cluster, training_data: Path, tmp_path: Path, server: WandbServer
) -> None:
    commands: set[bytes] = set()
    over = threading.Event()
    watcher = threading.Thread(target=collect_commands, args=(commands, over))
    watcher.start()
    environment = {"WANDB_BASE_URL": server.url, **SECRETS}
    try:
        run, said = start_twice(client, training_data, tmp_path, **environment)
    finally:
        over.set()
        watcher.join()
    assert len(server.history) == 1
    one_history(next(iter(server.history.values())))
    assert server.keys  # the key did reach the ranks

    shown = (
        said
        + client.run("scontrol", "show", "job", run.job())
        + b" ".join(commands).decode("utf-8", "replace")
    )
    assert b"fdl_runner" in b" ".join(commands)
    dry_run = [
        sys.executable,
        "-m",
        "nemolaunch.cli.main",
        "pretrain",
        *run.words(),
        "--resume",
        "auto",
        "--dry-run",
    ]
    shown += subprocess.run(
        dry_run, env={**client.environment, **SECRETS}, capture_output=True, text=True, check=True
    ).stdout
    for secret in SECRETS.values():
        assert secret not in shown
        for path in (*tmp_path.rglob("*"), *client.folder.rglob("*")):
            # Slurm itself keeps the environment of jobs in its own state
            if path.is_file() and client.folder / "state" not in path.parents:
                assert secret.encode() not in path.read_bytes(), path


def collect_commands(found: set[bytes], over: threading.Event) -> None:
    """Everything that `ps` would show of any process of this machine, the nodes' included."""
    while not over.is_set():
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    found.add(Path(entry.path, "cmdline").read_bytes())
                except OSError:
                    continue
        time.sleep(0.2)


def test_offline_pieces_sync_into_one_run(
    client: Cluster, training_data: Path, tmp_path: Path, server: WandbServer
) -> None:
    run, _ = start_twice(client, training_data, tmp_path, WANDB_MODE="offline")
    pieces = sorted((run.run.root / "wandb").glob("offline-run-*"))
    assert len(pieces) == 2
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": SECRETS["WANDB_API_KEY"]}
    for piece in pieces:
        command = [sys.executable, "-m", "wandb", "sync", "--yes", str(piece)]
        subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=120)
    assert len(server.history) == 1
    one_history(next(iter(server.history.values())))


def one_history(rows: list[dict[str, float]]) -> None:
    """Rows of both starts, none of the first lost, and W&B's own count going on."""
    steps = [int(row["trainer/global_step"]) for row in rows if "reduced_train_loss" in row]
    assert set(range(12)) <= set(steps)
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
