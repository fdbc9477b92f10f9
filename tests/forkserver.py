"""Run training jobs with several ranks in seconds: NeMo is imported once, and the ranks of each job are forked.

The server is a separate process (`python tests/forkserver.py DESCRIPTOR`), so the tests themselves never
import NeMo. A job is a function in a module under `tests/`; it runs in every rank, and its result comes back
as JSON. Ranks see the environment that torchrun would set. Each has its own session, all of which is killed
at the end of the job, since a checkpoint writer's helpers outlive a rank that dies.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}
START_TIMEOUT_S = 240
GRACE_S = 3  # for the other ranks to report once one has failed
SHOWN_LINES = 25  # of each rank's log, when a job fails


class JobFailed(AssertionError):
    """A rank raised, died or did not finish; the message has each rank's last lines."""


class ForkServer:
    """Starts the server process and sends it jobs, one at a time.

    Packages in the folder `overlay` come before those of the environment. With `bridge`, the interpreter of an
    environment that has it, the server imports Megatron-Bridge instead of NeMo.
    """

    def __init__(self, folder: Path, overlay: Path | None = None, bridge: Path | None = None) -> None:
        self.folder = folder
        paths = filter(None, (str(overlay or ""), os.environ.get("PYTHONPATH")))
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
        folder.mkdir(parents=True, exist_ok=True)
        self._ours, theirs = socket.socketpair()
        with open(folder / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                [
                    str(bridge or sys.executable),
                    __file__,
                    str(theirs.fileno()),
                    "bridge" if bridge else "nemo2",
                ],
                pass_fds=[theirs.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parent,
                env=environment,
                start_new_session=True,
            )
        theirs.close()
        self._replies = self._ours.makefile("r")
        self._ready = False
        self._jobs = 0

    def run(
        self, target: str, kwargs: dict[str, Any] | None = None, nproc: int = 1, timeout: float = 120
    ) -> list:
        """Run `module:function(**kwargs)` in `nproc` ranks. Return their results, by rank.

        `kwargs` and the results must be JSON-serialisable. Raises `JobFailed` if any rank did not return.
        """
        if not self._ready:  # the server imports NeMo while pytest collects and runs other tests
            self._receive(START_TIMEOUT_S)
            self._ready = True
        self._jobs += 1
        folder = self.folder / f"{self._jobs:03d}-{target.rpartition(':')[2]}"
        job = {
            "target": target,
            "kwargs": kwargs or {},
            "nproc": nproc,
            "timeout": timeout,
            "folder": str(folder),
        }
        self._ours.sendall(json.dumps(job).encode() + b"\n")
        ended = self._receive(timeout + 30)["ended"]
        if any(how != 0 for how in ended):
            raise JobFailed(_describe_failure(target, ended, folder))
        return [json.loads((folder / f"{rank}.result").read_text()) for rank in range(nproc)]

    def close(self) -> None:
        """Stop the server and everything it started."""
        self._replies.close()
        self._ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _receive(self, timeout: float) -> dict[str, Any]:
        self._ours.settimeout(timeout)
        try:
            line = self._replies.readline()
        except TimeoutError:
            line = ""
        if not line:
            raise JobFailed("the fork server does not answer:\n" + _tail(self.folder / "server.log"))
        return dict(json.loads(line))


def _describe_failure(target: str, ended: list[Any], folder: Path) -> str:
    parts = [f"{target}: ranks ended with {ended}; logs in {folder}"]
    parts += [
        f"--- rank {rank}\n{_tail(folder / f'{rank}.log')}" for rank, how in enumerate(ended) if how != 0
    ]
    return "\n".join(parts)


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else ["(no log)"]
    return "\n".join(lines[-SHOWN_LINES:])


def serve(connection: socket.socket, backend: str) -> None:
    """Run the server: import the framework, then fork the ranks of each job until the connection is closed."""
    (_import_bridge if backend == "bridge" else _import_nemo)()
    connection.sendall(b"{}\n")
    for line in connection.makefile("r"):
        ended = _run_job(**json.loads(line))
        connection.sendall(json.dumps({"ended": ended}).encode() + b"\n")


def _import_nemo() -> None:
    from nemolaunch import cpu
    from nemolaunch.nemo2 import patches

    patches.apply()
    cpu.install()
    from nemo.collections import llm  # noqa: F401


def _import_bridge() -> None:
    from nemolaunch.bridge import entry

    entry.prepare("cpu")
    from nemolaunch.bridge import callbacks, config  # noqa: F401


def _run_job(target: str, kwargs: dict[str, Any], nproc: int, timeout: float, folder: str) -> list[int | str]:
    """Return how each rank ended: its exit code, the negative signal number, or that it was killed."""
    Path(folder).mkdir(parents=True)
    port = _free_port()
    pids = []
    for rank in range(nproc):
        pid = os.fork()
        if pid == 0:
            _be_rank(target, kwargs, rank, nproc, port, timeout, Path(folder))
        pids.append(pid)
    ended = _wait(pids, timeout)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return [ended[pid] for pid in pids]


def _wait(pids: list[int], timeout: float) -> dict[int, int | str]:
    """Wait for all ranks; once one has failed, the others get a few seconds to report and are then killed."""
    ended: dict[int, int | str] = {}
    deadline = time.monotonic() + timeout
    while len(ended) < len(pids):
        for pid in pids:
            if pid not in ended and (status := os.waitpid(pid, os.WNOHANG))[0]:
                ended[pid] = os.waitstatus_to_exitcode(status[1])
                if ended[pid] != 0:
                    deadline = min(deadline, time.monotonic() + GRACE_S)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for pid in set(pids) - set(ended):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ended[pid] = "killed: did not end"
    return ended


def _be_rank(
    target: str, kwargs: dict[str, Any], rank: int, nproc: int, port: int, timeout: float, folder: Path
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        log = os.open(folder / f"{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(nproc),
            LOCAL_WORLD_SIZE=str(nproc),
            GROUP_RANK="0",
            NODE_RANK="0",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            TORCHELASTIC_RUN_ID="test",  # by which Lightning detects torchrun's environment
        )
        faulthandler.dump_traceback_later(max(timeout - 1, 1))
        module, _, function = target.partition(":")
        result = getattr(importlib.import_module(module), function)(**kwargs)
        (folder / f"{rank}.result").write_text(json.dumps(result))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
