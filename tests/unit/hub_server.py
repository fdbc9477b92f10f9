"""A server on the loopback that answers as the Hugging Face Hub does for the files of a dataset."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves `files` (path → bytes) as a dataset; can cut a transfer short, or refuse.

    `cut_after`: bytes after which the next transfers end (or, with `hang`, wait until `resume` is set).
    `refuse`: status code for every request from now on. `ranges`: where each transfer began, in bytes.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.cut_after: int | None = None
        self.hang = False
        self.refuse: int | None = None
        self.ranges: list[int] = []
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
        tree = re.fullmatch(r"/api/datasets/wikimedia/wikipedia/tree/main/?(.*)", path)
        file = re.fullmatch(rf"/datasets/wikimedia/wikipedia/resolve/(?:main|{COMMIT})/(.*)", path)
        if self.server.refuse:
            self._send(self.server.refuse, b"{}", {})
        elif tree:
            self._send_tree(tree[1])
        elif file and file[1] in self.server.files:
            self._send_file(self.server.files[file[1]], with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _send_tree(self, folder: str) -> None:
        inside = [path for path in self.server.files if path.startswith(f"{folder}/" if folder else "")]
        if not inside:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        entries: dict[str, dict] = {}
        for path in inside:
            name = path[len(folder) :].lstrip("/").split("/")[0]
            whole = f"{folder}/{name}".lstrip("/")
            kind = "file" if whole in self.server.files else "directory"
            entries[whole] = {"type": kind, "path": whole, "oid": COMMIT, "size": 0}
        self._send(200, json.dumps(list(entries.values())).encode(), {"Content-Type": "application/json"})

    def _send_file(self, content: bytes, with_body: bool) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if with_body:
            self.server.ranges.append(start)
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
