"""`nemolaunch tensorboard`: serve TensorBoard for runs on the loopback interface."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.views.render import guarded
from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import RunDir
from nemolaunch.system.installation import how_to_install

EXAMPLE = "nemolaunch tensorboard runs/pretraining runs/other --port 6006"
START_TIMEOUT_S = 120
FIRST_PORT = 6006


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nemolaunch tensorboard`."""
    p = Parser(
        prog="nemolaunch tensorboard",
        description="Start TensorBoard for one or several runs. It listens on this machine's loopback interface only; "
        "the SSH command that forwards it to your machine is printed. Ctrl-C stops it.",
        example=EXAMPLE,
    )
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    p.add_argument(
        "--port", type=int, metavar="N", help=f"port (default: the first free one from {FIRST_PORT})"
    )
    return p


@guarded
def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C. Return the exit code."""
    args = parser().parse_args(argv)
    port = _port(args.port)
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        *_log_folders(args.runs),
        f"--port={port}",
        "--host=127.0.0.1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_ready(process, port)
        print(f"TensorBoard: http://127.0.0.1:{port}/\non your own machine: {ssh_line(port)}", flush=True)
        process.communicate()
    except KeyboardInterrupt:
        return 0
    finally:
        process.terminate()
        process.wait()
    raise NemolaunchError(f"TensorBoard exited with code {process.returncode}")


def _log_folders(folders: Sequence[Path]) -> list[str]:
    """Return the arguments that tell TensorBoard where the runs are."""
    from nemolaunch.observe.report.run_page import names_of

    found = []
    for folder in folders:
        run = RunDir(folder.expanduser().absolute())
        if not run.plan.exists() and not run.tensorboard.is_dir():
            raise NemolaunchError(f"{folder} is not a run folder: it has no {run.plan.name}")
        if not any(run.tensorboard.rglob("events.out.tfevents.*")):
            raise NemolaunchError(f"{folder} has no TensorBoard data yet (looked in {run.tensorboard})")
        found.append(run)
    if len(found) == 1:
        return [f"--logdir={found[0].tensorboard}"]
    names = (name.replace(":", "-").replace(",", "-") for name in names_of([run.root for run in found]))
    pairs = (f"{name}:{run.tensorboard}" for name, run in zip(names, found, strict=True))
    return ["--logdir_spec=" + ",".join(pairs)]


def _port(requested: int | None) -> int:
    """Return the requested port, else the first free one."""
    for port in [requested] if requested is not None else range(FIRST_PORT, FIRST_PORT + 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except (OSError, OverflowError):
                continue
    if requested is not None:
        raise NemolaunchError(f"--port {requested} is not available; without --port, a free port is used")
    raise NemolaunchError(f"no port from {FIRST_PORT} to {FIRST_PORT + 99} is free; choose one with --port")


def _wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            said = (process.stderr.read() if process.stderr else "").strip().splitlines()
            missing = "No module named" in (said or [""])[-1]
            hint = f": {how_to_install('train')}" if missing else ""
            raise NemolaunchError(f"TensorBoard did not start: {(said or ['no reason given'])[-1]}{hint}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise NemolaunchError(f"TensorBoard did not respond within {START_TIMEOUT_S} s")


def ssh_line(port: int) -> str:
    """Return the command that forwards the port to the user's own machine.

    The host is the address of the current SSH session; without one, the machine's full name.
    """
    words = os.environ.get("SSH_CONNECTION", "").split()
    host = socket.getfqdn()
    own_port = ""
    if len(words) == 4:
        if host in ("localhost", "") or "." not in host:
            host = words[2]
        own_port = f" -p {words[3]}" if words[3] != "22" else ""
    if host.startswith("localhost"):
        host = socket.gethostname()
    return f"ssh -N -L {port}:127.0.0.1:{port}{own_port} {_user()}@{host}"


def _user() -> str:
    """Return the name of the user, even if the environment does not contain it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return "USER"
