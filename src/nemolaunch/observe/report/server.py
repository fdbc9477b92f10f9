"""Serve the report of runs, which follows them: one page, and nothing else."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.observe.report.report import render
from nemolaunch.observe.report.run_page import run_pages
from nemolaunch.run.folder import RunDir

TOKEN_VARIABLE = "NEMOLAUNCH_REPORT_TOKEN"
SHORTEST_TOKEN = 16  # characters
FIRST_PORT, NUM_PORTS = 8050, 100
REFRESH_S = 5.0  # the page asks this often, and is rendered at most this often
SLOW_CLIENT_S = 30.0
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"


class LivePage:
    """The page about some runs, rendered again when their folders have changed.

    Rendering a long run takes a second, so that all readers share one page.
    """

    def __init__(self, folders: list[Path]) -> None:
        """Render the page once.

        Raises:
            NemolaunchError: a folder is not a run folder.
        """
        self._folders = folders
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._page, self._tag = b"", ""
        self._render()

    def current(self) -> tuple[bytes, str]:
        """Return the page and a tag that changes with what it shows."""
        with self._lock:
            if time.monotonic() - self._looked >= REFRESH_S:
                self._looked = time.monotonic()
                self._render()
            return self._page, self._tag

    def _render(self) -> None:
        try:
            pages = run_pages(self._folders)
        except NemolaunchError:
            if not self._page:
                raise
            return  # moved or removed meanwhile: what was last seen stays
        # what runs a moment ago, and what is drawn: not the time of rendering
        seen = repr([(page.state, page.last_time, page.labels, _changes(RunDir(f))) for page, f in zip(
            pages, self._folders, strict=True
        )])  # fmt: skip
        tag = hashlib.sha256(seen.encode()).hexdigest()[:16]
        if tag != self._tag:
            self._tag, self._page = tag, render(pages, refresh_s=REFRESH_S).encode()


def _changes(run: RunDir) -> list[tuple[int, int]]:
    """Return size and time of what the page is made from."""
    files = (
        run.metrics,
        run.evaluations,
        run.plan,
        run.local_end,
        run.finished,
        run.checkpoints,
        run.slurm_stopped,
    )
    found = []
    for path in files:
        try:
            about = path.stat()
        except OSError:
            continue
        found.append((about.st_size, about.st_mtime_ns))
    return found


class ReportServer(ThreadingHTTPServer):
    """A server of one page at `/`, on the loopback or, with a token as the password, elsewhere."""

    daemon_threads = True

    def __init__(self, page: LivePage, host: str, port: int, token: str | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page, self.token, self.is_local = page, token, is_loopback(host)
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version = "nemolaunch", ""
    timeout = SLOW_CLIENT_S

    def do_HEAD(self) -> None:
        """Answer with the headers alone: the page asks in this way whether it has changed."""
        self._answer(with_page=False)

    def do_GET(self) -> None:
        """Answer with the page."""
        self._answer(with_page=True)

    def _answer(self, *, with_page: bool) -> None:
        if not self._is_own_name():
            return self._refuse(403, "this server is for this machine's own browser")
        if not self._is_allowed():
            return self._refuse(401, "the password is the token")
        if self.path not in ("/", "/favicon.ico"):
            return self._refuse(404, "there is nothing but the report, at /")
        if self.path == "/favicon.ico":
            return self._refuse(404, "no icon")
        page, tag = self.server.page.current()
        self.send_response(200)
        self._headers(len(page), "text/html; charset=utf-8")
        self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if with_page:
            self.wfile.write(page)

    def _headers(self, length: int, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")

    def _refuse(self, code: int, why: str) -> None:
        said = f"{why}\n".encode()
        self.send_response(code)
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="nemolaunch report", charset="UTF-8"')
        self._headers(len(said), "text/plain; charset=utf-8")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    def _is_own_name(self) -> bool:
        """Return whether a loopback server was asked by that name; web pages of others may have theirs point to it."""
        if not self.server.is_local:
            return True
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].strip("[]")
        return host == "localhost" or is_loopback(host)

    def _is_allowed(self) -> bool:
        """Return whether the password is the token, if there is one."""
        if self.server.token is None:
            return True
        kind, _, coded = (self.headers.get("Authorization") or "").partition(" ")
        try:
            password = base64.b64decode(coded, validate=True).partition(b":")[2]
        except binascii.Error:
            password = b""
        return kind.lower() == "basic" and hmac.compare_digest(password, self.server.token.encode())

    def log_message(self, *words: object) -> None:
        """Log nothing: what a reader sends is nobody's business."""


def is_loopback(host: str) -> bool:
    """Return whether an address is one of this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str) -> str | None:
    """Return the token that readers must give; None on the loopback if none is set.

    Raises:
        UsageError: one is needed and not set, or it is too short.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines: set a token for them, "
            f"`export {TOKEN_VARIABLE}=$(openssl rand -hex 16)`, which is the password of the page (any user name)"
        )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UsageError(f"{TOKEN_VARIABLE} has fewer than {SHORTEST_TOKEN} characters")
    return token


def server_of(folders: list[Path], host: str, port: int | None) -> ReportServer:
    """Return a server of the report that listens already; without a port, on the first free one from 8050.

    Raises:
        UsageError: a token is missing or too short.
        NemolaunchError: a folder is not a run folder, or the address is not available.
    """
    token = token_for(host)
    page = LivePage([folder.expanduser().absolute() for folder in folders])
    ports = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if port is None else [port]
    reason = ""
    for each in ports:
        try:
            return ReportServer(page, host, each, token)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
    what = f"--host {host}" if port is None else f"--host {host} --port {port}"
    raise NemolaunchError(f"{what} is not available: {reason}")
