"""A run on a cluster reached over SSH, followed through `nemolaunch follow --json` on the cluster."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.launching.ssh_host import SshHost

RECONNECT_S = 10.0  # before a lost connection is tried again


def max_steps_of(host: SshHost, folder: str) -> int:
    """Return the last step of a run on a cluster. Raise NemolaunchError if there is no such run."""
    answer = host.run(host.command("nemolaunch", "status", "--json", folder))
    try:
        return int(json.loads(answer.out)["max_steps"])
    except (ValueError, KeyError):
        raise NemolaunchError(f"on {host.name}: {' '.join(answer.err.split())}") from None


class RemoteRun:
    """A run on another machine, followed until it is over: `poll`, `new_rows`, and its `verdict` at the end.

    A lost connection is reopened as often as necessary: the run does not depend on it.
    """

    def __init__(self, host: SshHost, folder: str, tell: Callable[[str], None]) -> None:
        self._host, self._folder, self._tell = host, folder, tell
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._again = 0.0
        self._rows: list[dict[str, Any]] = []
        self.verdict = ""

    def poll(self) -> int | None:
        """Return the run's exit code; None while it continues."""
        if self._process is None and time.monotonic() >= self._again:
            self._connect()
        elif self._process is not None and self._process.poll() is not None and self._lines.empty():
            self._tell(f"lost the connection to {self._host.name}; reconnecting …")
            self._process, self._again = None, time.monotonic() + RECONNECT_S
        while not self._lines.empty():
            what = self._lines.get()
            if "row" in what:
                self._rows.append(what["row"])
            elif "say" in what:
                self._tell(what["say"])
            elif "end" in what:
                self.verdict = what["text"]
                return int(what["end"])
        return None

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows added to its metrics since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        """Close the connection; the run continues."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _connect(self) -> None:
        self._process = self._host.popen("nemolaunch", "follow", "--json", self._folder)
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:  # a login message, or half a line where the connection broke
                continue
