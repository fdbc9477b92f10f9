"""`nemolaunch tensorboard` serves the runs on the loopback interface and prints how to reach it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.commands import tensorboard

COMMAND = [sys.executable, "-m", "nemolaunch.cli.main", "tensorboard"]
SSH = {"SSH_CONNECTION": "10.0.0.9 51234 10.0.0.7 2222", "LOGNAME": "ada"}


def with_data(folder: Path) -> Path:
    """Write a run folder with TensorBoard data from a real writer."""
    from torch.utils.tensorboard import SummaryWriter

    run = write_run(folder, [start(), step(1, 9.0)])
    with SummaryWriter(str(run / "tb_logs")) as writer:
        writer.add_scalar("loss", 9.0, 1)
    return run


def test_it_serves_on_the_loopback_until_ctrl_c(tmp_path: Path) -> None:
    runs = [str(with_data(tmp_path / name)) for name in ("one", "two")]
    process = subprocess.Popen(
        [*COMMAND, *runs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **SSH},
    )
    assert process.stdout is not None
    try:
        address, line = process.stdout.readline(), process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", address)
        assert found, process.communicate()
        port = found[1]
        assert re.search(rf"ssh -N -L {port}:127\.0\.0\.1:{port} -p 2222 ada@\S+", line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs") as reply:
            assert [name.split("/")[0] for name in sorted(json.load(reply))] == ["one", "two"]
        other = tensorboard._port(None)
        assert other != int(port)  # a second server uses another port
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(["nowhere"], "is not a run folder"), (["empty"], "has no TensorBoard data yet")],
)
def test_mistakes_are_reported(
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "empty", [start()])
    monkeypatch.chdir(tmp_path)
    assert tensorboard.main(words) == 1
    assert said in capsys.readouterr().err
