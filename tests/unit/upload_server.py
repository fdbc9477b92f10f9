"""A server on the loopback that takes models as the Hugging Face Hub does: commits, LFS objects, tags, collections."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Repo:
    """A repository: `files` are contents by path; `commits` their numbers, from the first."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    tags: dict[str, str] = field(default_factory=dict)


class UploadServer(ThreadingHTTPServer):
    """`drop`: so many of the next large files lose their connection half-way. `token`: the only one let in.

    `before` and `after` are called with the number of a request, from 1, before it is looked at and before its answer.
    """

    daemon_threads = True

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.collections: dict[str, list[str]] = {}
        self.drop = 0
        self.uploads: list[int] = []
        self.requests = itertools.count(1)
        self.before: Callable[[int], None] = lambda number: None
        self.after: Callable[[int], None] = lambda number: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep the test output clean when a client is gone."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: UploadServer
    protocol_version = "HTTP/1.1"
    number = 0

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        self._route("GET", b"")

    def do_POST(self) -> None:
        self._route("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.number = next(self.server.requests)
        self.server.before(self.number)
        if self.server.drop:
            self.server.drop -= 1
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        content = self.rfile.read(length)
        self.server.uploads.append(len(content))
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._send(200, {})

    def _route(self, method: str, body: bytes) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(401, {"error": "Invalid credentials"})
            return
        self.number = next(self.server.requests)
        self.server.before(self.number)
        path = unquote(self.path.partition("?")[0])
        for pattern, answer in (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda b: {"errors": [], "warnings": []}),
            (r"/api/collections", self._collection),
            (r"/api/collections/(.+)/items", self._item),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
            (r"/api/models/([^/]+/[^/]+)/tag/(\w+)", self._tag),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", self._info),
        ):
            match = re.fullmatch(pattern, path)
            if match:
                answered: Any = answer(body, *match.groups())
                self._send(*(answered if isinstance(answered, tuple) else (200, answered)))
                return
        self._send(404, {"error": f"no such path {path}"})

    def _create(self, body: bytes) -> Any:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        url = {"url": f"{self.server.url}/{name}"}
        if name in self.server.repos:
            return 409, {**url, "error": "You already created this model repo"}
        self.server.repos[name] = Repo(bool(asked.get("private")))
        return url

    def _info(self, body: bytes, name: str, revision: str | None) -> Any:
        repo = self.server.repos[name]
        commit = repo.tags.get(revision or "", repo.commits[-1])
        return {"id": name, "sha": commit, "private": repo.private, "siblings": [], "tags": []}

    def _preupload(self, body: bytes, name: str) -> Any:
        repo = self.server.repos[name]
        files = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            row = {"path": path, "shouldIgnore": False}
            row["uploadMode"] = "lfs" if path.endswith(".safetensors") else "regular"
            if path in repo.files:
                row["oid"] = _oid(repo, path)
            files.append(row)
        return {"files": files}

    def _batch(self, body: bytes, name: str) -> Any:
        rows: list[dict[str, Any]] = []
        for asked in json.loads(body)["objects"]:
            row = dict(asked)
            if asked["oid"] not in self.server.objects:
                row["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}
            rows.append(row)
        return {"transfer": "basic", "objects": rows}

    def _commit(self, body: bytes, name: str) -> Any:
        repo = self.server.repos[name]
        before = dict(repo.files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.server.objects[value["oid"]]
                repo.lfs.add(value["path"])
        if repo.files != before:
            repo.commits.append(f"{len(repo.commits):040}")
        return {"commitUrl": f"{self.server.url}/{name}/commit/{repo.commits[-1]}", "commitOid": repo.commits[-1],
                "success": True}  # fmt: skip

    def _tag(self, body: bytes, name: str, revision: str) -> Any:
        repo, tag = self.server.repos[name], json.loads(body)["tag"]
        if tag in repo.tags:
            return 409, {"error": "tag exists"}
        repo.tags[tag] = revision
        return {}

    def _collection(self, body: bytes) -> Any:
        asked = json.loads(body)
        slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-1"
        self.server.collections.setdefault(slug, [])
        return self._described(slug)

    def _described(self, slug: str) -> dict[str, Any]:
        return {
            "slug": slug, "title": slug, "owner": {"name": "team"}, "items": [],
            "lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "private": True, "theme": "blue", "upvotes": 0,
        }  # fmt: skip

    def _item(self, body: bytes, slug: str) -> Any:
        item = json.loads(body)["item"]["id"]
        if item in self.server.collections[slug]:
            return 409, {"error": "exists"}
        self.server.collections[slug].append(item)
        return self._described(slug)

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.server.after(self.number)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _oid(repo: Repo, path: str) -> str:
    """As git names a blob; of large files the SHA-256."""
    content = repo.files[path]
    if path in repo.lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
