"""A process that has imported the framework and waits: jobs on this machine are forked from it, and start at once.

    python -m nemolaunch.launching.warm_server SOCKET ENTRY DEVICE CODE

The first job is waited for before the import, which is a phase of it. The process ends once no job has come for as long
as the last one asked for. Only the user who started it is answered. What a job was started with, above all its
variables, is in its own fork and not here.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from nemolaunch.launching.warm_words import differences, inherited, is_mine
from nemolaunch.ranks import phases
from nemolaunch.run.folder import RunDir
from nemolaunch.system import processes, shown_environment

FIRST_WAIT_S = 60.0  # for the command that started this process
REQUEST_TIMEOUT_S = 10.0
PATIENCE_S = 15.0  # for a job to end whose command has ended


class Job:
    """A job that was forked, and the connection to the command that asked for it."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection, self.pid = connection, pid
        self.handle = os.pidfd_open(pid)
        self.kill_at = float("inf")

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)


class Server:
    """Answers one command after the other, and watches the jobs of all."""

    def __init__(self, address: str, entry: str, device: str, code: str) -> None:
        self._address, self._entry, self._device, self._code = address, entry, device, code
        self._environment = {n: v for n, v in os.environ.items() if n != shown_environment.RESERVED}
        self._inherited = inherited()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._jobs: list[Job] = []
        self._is_ready = self._retired = False
        self._minutes = 0.0
        self._until = time.monotonic() + FIRST_WAIT_S

    def serve(self) -> None:
        """Serve until nothing has been asked for long enough."""
        while self._jobs or not (self._retired or time.monotonic() > self._until):
            moments = [job.kill_at for job in self._jobs] or [self._until]
            pause = min(moments) - time.monotonic()
            for key, _ in self._selector.select(None if pause == float("inf") else max(pause, 0.0)):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data[1] == "ended":
                    self._ended(key.data[0])
                else:
                    self._told(key.data[0])
            for job in self._jobs:
                if time.monotonic() > job.kill_at:
                    job.signal(signal.SIGKILL)
        self._retire()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        try:
            if not is_mine(connection):
                raise PermissionError("another user asked")
            connection.settimeout(REQUEST_TIMEOUT_S)
            request: dict[str, Any] = json.loads(connection.makefile("r").readline())
            connection.settimeout(None)
            if differing := self._differences(request):
                self._answer(connection, differs=differing)
                connection.close()
                self._retire()
                return
            self._minutes = float(request["minutes"])
            self._import_for(request)
            self._start(connection, request)
        except (OSError, ValueError, KeyError):  # whatever it was, other jobs go on
            traceback.print_exc()
            connection.close()

    def _differences(self, request: Mapping[str, Any]) -> list[str]:
        """Return in what a job's start differs from that of this process, in words."""
        found = differences(self._environment, request["environment"])
        if request["code"] != self._code:
            found.append("the installed code")
        mine, other = self._inherited, request["inherited"]
        return found + [name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name)]

    def _import_for(self, request: Mapping[str, Any]) -> None:
        """Import the framework, if that has not been done; a rank reports what fails then."""
        if self._is_ready:
            return
        phases.begin(RunDir(Path(request["plan"]).parent), f"importing {request['framework']}")
        request["environment"][phases.IMPORTED] = "1"
        try:
            importlib.import_module(self._entry).preload(self._device)
        except Exception:
            traceback.print_exc()
        self._is_ready = True

    def _start(self, connection: socket.socket, request: Mapping[str, Any]) -> None:
        with suppress(OSError, BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                connection.close()  # the command has ended
                return
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._be_job(connection, request)
        job = Job(connection, pid)
        self._jobs.append(job)
        self._selector.register(connection, selectors.EVENT_READ, (job, "told"))
        self._selector.register(job.handle, selectors.EVENT_READ, (job, "ended"))
        self._answer(connection, pid=pid)

    def _be_job(self, connection: socket.socket, request: Mapping[str, Any]) -> NoReturn:
        """Be the job, in the fork."""
        code = 1
        try:
            processes.signal_on_parents_death(signal.SIGTERM)
            os.setsid()
            for other in self._jobs:
                os.close(other.handle)
                other.connection.close()
            self._selector.close()
            self._listener.close()
            connection.close()
            shown_environment.take_over(request["environment"])
            os.chdir(request["folder"])
            os.umask(request["umask"])
            sys.path[0] = request["folder"]
            log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from nemolaunch.launching import warm_ranks

            code = warm_ranks.run(request["plan"], self._entry)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _told(self, job: Job) -> None:
        """Pass signals on; a command that is gone ends its job."""
        try:
            data = job.connection.recv(4096)
        except OSError:
            data = b""
        for line in data.splitlines():
            job.signal(int(line))
        if not data:
            self._selector.unregister(job.connection)
            job.signal(signal.SIGTERM)
            job.kill_at = time.monotonic() + PATIENCE_S

    def _ended(self, job: Job) -> None:
        _, status = os.waitpid(job.pid, 0)
        self._answer(job.connection, code=os.waitstatus_to_exitcode(status))
        self._selector.unregister(job.handle)
        with suppress(KeyError):
            self._selector.unregister(job.connection)
        os.close(job.handle)
        job.connection.close()
        self._jobs.remove(job)
        self._until = time.monotonic() + 60 * self._minutes

    def _retire(self) -> None:
        """Take no further jobs."""
        if not self._retired:
            self._retired = True
            self._selector.unregister(self._listener)
            self._listener.close()
            with suppress(OSError):
                os.unlink(self._address)

    def _answer(self, connection: socket.socket, **answer: Any) -> None:
        with suppress(OSError):
            connection.sendall(json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Serve, until nothing is asked for."""
    Server(*sys.argv[1:]).serve()


if __name__ == "__main__":
    main()
