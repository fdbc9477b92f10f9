"""Have a job forked from a process that has imported the framework, and start that process if there is none.

`WarmProcess` is what `subprocess.Popen` is for a job that is started anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.launching.torchrun import environment
from nemolaunch.launching.warm_words import code_of, inherited, is_mine, of_import
from nemolaunch.planning import Plan
from nemolaunch.system import shown_environment

PACKAGE = Path(__file__).parents[1]
START_TIMEOUT_S = 30.0
TRIES = 3  # if another command replaces the process in the meantime
SERVER = "nemolaunch.launching.warm_server"


class WarmProcess:
    """A job that is forked from the warm process: torchrun's agent, with the ranks below it.

    Attributes:
        pid: of the agent; None until it is forked.
        returncode: as of `subprocess.Popen`.
    """

    def __init__(self, connection: socket.socket, again: Callable[[], WarmProcess]) -> None:
        """Take an accepted connection; `again` asks once more, if the process is of another environment."""
        self._connection, self._again = connection, again
        self._received = b""
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code once the job has ended."""
        while self.returncode is None:
            try:
                data = self._connection.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            self._take(data)
        return self.returncode

    def _take(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "differs" in answer:
                self._connection.close()
                self._connection = self._again()._connection
                return
            self.pid = answer.get("pid", self.pid)
            self.returncode = answer.get("code", self.returncode)
        if not data and self.returncode is None:
            self.returncode = -signal.SIGKILL  # with the process that it is a fork of
        if self.returncode is not None:
            self._connection.close()

    def wait(self) -> int:
        """Wait for the job's end, and return its exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code

    def terminate(self) -> None:
        """Ask the job to end; one that waits for the import never begins."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the agent."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        self.poll()
        if self.returncode is not None:
            return
        if self.pid is None:
            self._connection.close()
            self.returncode = -number
            return
        with suppress(OSError):
            self._connection.sendall(f"{int(number)}\n".encode())


def start(plan: Plan, marks: Mapping[str, str], log_file: Path) -> WarmProcess:
    """Start the ranks of a plan from the warm process.

    Args:
        marks: variables of the job besides those of this process.
        log_file: for the agent's output; it exists.

    Raises:
        NemolaunchError: the folder of the process is not safe, or the process does not start.
    """
    if sys.platform != "linux":
        raise NemolaunchError("--keep-warm needs Linux; start without it")
    folder = _folder()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands at once start one process
        for _ in range(TRIES):
            connection = _ask(plan, {**environment(plan), **marks}, log_file, folder)
            if connection is not None:
                return WarmProcess(connection, lambda: start(plan, marks, log_file))
    raise NemolaunchError(
        "the process that is kept warm is replaced again and again; start without --keep-warm"
    )


def _folder() -> Path:
    """Return the folder of the sockets, which only this user can enter."""
    parent = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(parent).absolute() / f"nemolaunch-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NemolaunchError(
            f"{folder} must be a folder that only you can enter, for the process that --keep-warm keeps; "
            "remove it, or start without --keep-warm"
        )
    return folder


def _ask(plan: Plan, variables: dict[str, str], log_file: Path, folder: Path) -> socket.socket | None:
    """Return the connection that has the job; None if the process was one of another environment, and goes."""
    python = plan.python or sys.executable
    if plan.python:  # a link that outlives the run folder
        variables["PYTHONPATH"] = str(_code_folder(folder))
    name = hashlib.sha256(f"{python} {plan.entry} {plan.device}".encode()).hexdigest()[:16]
    address, code = folder / name, code_of(PACKAGE, python)
    connection = _connect(address)
    if connection is None:
        server = _start_server([python, "-m", SERVER, str(address), plan.entry, plan.device, code], variables)
        connection = _connect_to(server, address)
    umask = os.umask(0o022)  # can only be read by setting it
    os.umask(umask)
    request = {
        "environment": variables,
        "code": code,
        "inherited": inherited(),
        "umask": umask,
        "folder": os.getcwd(),
        "log": str(log_file),
        "plan": str(plan.run.plan),
        "framework": "Megatron-Bridge" if plan.with_bridge else "NeMo",
        "minutes": plan.job.launch.keep_warm,
    }
    connection.sendall(json.dumps(request).encode() + b"\n")
    answer = _first_answer(connection)
    if "differs" in answer:
        connection.close()
        return None
    return connection


def _first_answer(connection: socket.socket) -> dict[str, Any]:
    """Return what the process answers at once; nothing if it imports first."""
    connection.settimeout(1.0)
    try:
        line = connection.recv(4096, socket.MSG_PEEK)
    except TimeoutError:
        line = b""
    finally:
        connection.settimeout(None)
    return dict(json.loads(line.splitlines()[0])) if line else {}


def _code_folder(folder: Path) -> Path:
    """Return a folder with this package alone, for an interpreter that has other packages."""
    own = folder / f"code-{hashlib.sha256(str(PACKAGE).encode()).hexdigest()[:16]}"
    own.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        (own / "nemolaunch").symlink_to(PACKAGE, target_is_directory=True)
    return own


def _connect(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        with suppress(OSError):
            address.unlink()  # of a process that was killed
        return None
    if not is_mine(connection):
        raise NemolaunchError(f"{address} belongs to another user; remove it, or start without --keep-warm")
    return connection


def _start_server(words: list[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log = Path(words[3]).with_suffix(".log")
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=shown_environment.with_room(of_import(variables)),
            cwd="/",  # Python finds modules there
            start_new_session=True,
        )


def _connect_to(server: subprocess.Popen[bytes], address: Path) -> socket.socket:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        if address.exists() and (connection := _connect(address)) is not None:
            return connection
        time.sleep(0.02)
    server.kill()
    log = Path(address).with_suffix(".log")
    raise NemolaunchError(
        f"the process that --keep-warm keeps did not start; {log} says why. Start without --keep-warm"
    )
