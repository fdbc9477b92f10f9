"""A cluster's login node, reached with the user's own `ssh`; a copy of this package runs there.

Configuration, keys, agents and jump hosts are left to `ssh`. The copy needs Python 3.10 or newer and nothing else,
and is kept in `~/.cache/nemolaunch`, one folder per version of the code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.system import source_archive
from nemolaunch.system.json_files import parse_json

CACHE = ".cache/nemolaunch"
UNREACHABLE = 255  # the exit code of ssh itself if it cannot connect


class NotConnected(NemolaunchError):
    """ssh itself failed, so the command may not have run."""


@dataclass(frozen=True)
class Answer:
    """The output and exit code of a command on the host."""

    code: int
    out: str
    err: str


class SshHost:
    """A host that runs commands over a single connection, which is kept open. Use it in a `with` statement.

    Args:
        name: `HOST` or `USER@HOST`, as for `ssh`.
        python: the Python interpreter on the host.
    """

    def __init__(self, name: str, python: str = "python3") -> None:
        if shutil.which("ssh") is None:
            raise NemolaunchError("--ssh needs the command ssh, which is not installed on this machine")
        if name.startswith("-"):
            raise UsageError(
                f"--ssh {name!r} begins with a dash, so ssh would take it for an option: give HOST or USER@HOST"
            )
        self.name = name
        self.python = python
        self._sockets = ""

    def __enter__(self) -> SshHost:
        self._sockets = tempfile.mkdtemp(prefix="nl-")  # short: a socket's path has at most 107 characters
        return self

    def __exit__(self, *raised: object) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["ssh", *self._options(), "-O", "exit", "--", self.name]
            subprocess.run(command, capture_output=True, timeout=10)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _options(self) -> list[str]:
        shared = ("ControlMaster=auto", f"ControlPath={self._sockets}/%C", "ControlPersist=60")
        return [word for option in (*shared, "ServerAliveInterval=15") for word in ("-o", option)]

    def run(self, command: str, send: bytes = b"", timeout_s: float | None = None) -> Answer:
        """Run a shell command on the host, with `send` as its standard input.

        Raises:
            NotConnected: ssh could not connect, or lost the connection.
        """
        words = ["ssh", *self._options(), "--", self.name, command]
        try:
            done = subprocess.run(words, input=send, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise NotConnected(f"{self.name} did not answer within {timeout_s:.0f} s") from None
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        if done.returncode == UNREACHABLE:
            raise NotConnected(
                f"--ssh {self.name}: {' '.join(err.split()) or 'ssh failed without a message'}"
            )
        return Answer(done.returncode, out, err)

    @functools.cached_property
    def home(self) -> str:
        """The home folder on the host, in which commands run."""
        answer = self.run("pwd")
        if answer.code:
            raise NemolaunchError(f"--ssh {self.name}: {' '.join(answer.err.split())}")
        return answer.out.strip()

    @functools.cached_property
    def code(self) -> str:
        """The folder on the host with a copy of this package, created on first use."""
        archive = source_archive.archive()
        folder = f"{self.home}/{CACHE}/{hashlib.sha256(archive).hexdigest()[:16]}"
        if self.run(f"test -d {shlex.quote(folder)}").code:
            new = shlex.quote(f"{folder}.{os.getpid()}")
            made = f"mkdir -p {new} && tar -xzf - -C {new} && mv -T {new} {shlex.quote(folder)}"
            answer = self.run(made, archive)
            if answer.code:
                raise NemolaunchError(f"--ssh {self.name}: {' '.join(answer.err.split())}")
        return folder

    def command(self, module: str, *words: str) -> str:
        """Return the shell command that runs a module of this package on the host."""
        return f"PYTHONPATH={shlex.quote(self.code)} " + shlex.join([self.python, "-m", module, *words])

    def call(self, module: str, *words: str, send: Any = None) -> Any:
        """Run a module of this package that reads and prints JSON. Return its answer.

        Raises:
            NemolaunchError: the module failed; the message is the last line of its errors.
        """
        answer = self.run(self.command(module, *words), json.dumps(send).encode())
        if answer.code:
            lines = answer.err.strip().splitlines() or [f"exit code {answer.code}"]
            raise NemolaunchError(f"on {self.name}: {lines[-1].removeprefix('error: ')}")
        try:
            return parse_json(answer.out)
        except ValueError as error:
            raise NemolaunchError(f"on {self.name}: the answer of {module} is not JSON: {error}") from None

    def read_text(self, path: str) -> str:
        """Return the content of a file on the host. Raise NemolaunchError if it cannot be read."""
        answer = self.run(f"cat -- {shlex.quote(path)}")
        if answer.code:
            raise NemolaunchError(f"on {self.name}: {' '.join(answer.err.split())}")
        return answer.out

    def passed_through(self, module: str, *words: str) -> int:
        """Run a module on the host, attached to this terminal. Return its exit code."""
        terminal = ["-t"] if os.isatty(0) and os.isatty(1) else []
        return subprocess.call(["ssh", *terminal, *self._options(), self.name, self.command(module, *words)])

    def popen(self, module: str, *words: str) -> subprocess.Popen[str]:
        """Start a module on the host, with its output in a pipe."""
        return subprocess.Popen(
            ["ssh", *self._options(), self.name, self.command(module, *words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process to handle
        )


@contextlib.contextmanager
def secrets_on(host: SshHost, secrets: dict[str, str]) -> Iterator[str | None]:
    """Keep a script that exports secrets in memory on the host, readable by the user only, during a submission.

    The secrets are sent on standard input, so that they never appear in a process list. Yields the script's path, or
    None if there are no secrets.
    """
    if not secrets:
        yield None
        return
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in secrets.items())
    script = 'umask 077 && f=$(mktemp /dev/shm/nemolaunch.XXXXXXXX) && cat > "$f" && echo "$f"'
    made = host.run(script, text.encode())
    if made.code:
        raise NemolaunchError(f"on {host.name}: {' '.join(made.err.split())}")
    path = made.out.strip()
    try:
        yield path
    finally:
        host.run(f"rm -f {shlex.quote(path)}")
