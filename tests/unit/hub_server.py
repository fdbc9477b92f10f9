"""A server on the loopback that answers as the Hugging Face Hub does for data sets and models."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """What a repository holds: contents by path, and the head of its card. `gated`: terms to accept first."""

    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False


class HubServer(ThreadingHTTPServer):
    """Serves `repos` by name, data sets as `datasets/NAME`; can cut a transfer short, or refuse.

    `cut_after`: bytes after which the next transfers end (or, with `hang`, wait until `resume` is set).
    `refuse`: status code for every request from now on. `ranges`: where each transfer began, in bytes.
    """

    daemon_threads = True

    def __init__(self, repos: dict[str, Repo]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = repos
        self.cut_after: int | None = None
        self.hang = False
        self.refuse: int | None = None
        self.ranges: list[int] = []
        self.transferred: list[str] = []
        self.tokens: set[str] = set()
        self.cut = threading.Event()
        self.resume = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Address to give as `--endpoint`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop serving."""
        self.resume.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.server.tokens.add(self.headers.get("Authorization", ""))
        path = unquote(self.path.partition("?")[0])
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path)
        tree = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path)
        if self.server.refuse:
            self._send(self.server.refuse, b"{}", {})
        elif tree:
            self._send_tree(self.server.repos[f"datasets/{tree[1]}"], tree[2])
        elif api:
            prefix = "datasets/" if api[1] == "datasets" else ""
            self._send_info(self.server.repos.get(f"{prefix}{api[2]}"), api[2], api[3])
        elif file:
            repo = self.server.repos.get(f"{file[1] or ''}{file[2]}")
            if repo is None or (repo.gated and not self.headers.get("Authorization")):
                self._send_no_repo(repo)
            elif file[4] in repo.files:
                self._send_file(file[4], repo.files[file[4]], with_body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            self._send(404, b"{}", {})

    def _send_info(self, repo: Repo | None, name: str, revision: str | None) -> None:
        if repo is None:
            self._send_no_repo(repo)
        elif revision not in (None, "main", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [{"rfilename": p, "size": len(c), "blobId": COMMIT} for p, c in repo.files.items()]
            info = {"id": name, "sha": COMMIT, "siblings": siblings, "cardData": repo.card, "tags": []}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def do_POST(self) -> None:
        """`paths-info`: what some paths of a data set are."""
        name = unquote(self.path).removeprefix("/api/datasets/").partition("/paths-info/")[0]
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        repo = self.server.repos[f"datasets/{name}"]
        found = _entries(repo, [p for p in parse_qs(asked).get("paths", []) if p in repo.files])
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _send_tree(self, repo: Repo, folder: str) -> None:
        """All files below a folder, and the folders between."""
        inside = [path for path in repo.files if path.startswith(f"{folder}/" if folder else "")]
        if not inside:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        above = {str(p) for path in inside for p in PurePosixPath(path).parents} - {".", folder}
        folders = [{"type": "directory", "path": p, "oid": COMMIT, "size": 0} for p in sorted(above)]
        body = json.dumps(folders + _entries(repo, inside)).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _send_no_repo(self, repo: Repo | None) -> None:
        if repo is None:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            self._send(401, b"{}", {"X-Error-Code": "GatedRepo"})

    def _send_file(self, path: str, content: bytes, with_body: bool) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, size = int(asked[1]) if asked else 0, len(content)
        content = content[: int(asked[2]) + 1] if asked and asked[2] else content
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{size}"
        body = content[start:]
        if with_body:
            self.server.ranges.append(start)
            self.server.transferred.append(path)
            if self.server.cut_after is not None:
                self._send_part(206 if asked else 200, body, headers)
                return
        self._send(206 if asked else 200, body, headers, with_body)

    def _send_part(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._send(status, body, headers, with_body=False)
        self.wfile.write(body[: self.server.cut_after])
        self.wfile.flush()
        self.server.cut.set()
        if self.server.hang:
            self.server.resume.wait()
        self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)


def _entries(repo: Repo, paths: list[str]) -> list[dict[str, Any]]:
    return [{"type": "file", "path": p, "oid": COMMIT, "size": len(repo.files[p])} for p in paths]
