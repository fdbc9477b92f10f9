"""Moto's S3 server, which prints its address; under /tests/ it takes orders: to fail, and to list requests."""

from __future__ import annotations

import itertools
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Middleware:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.every = 0
        self.count = itertools.count(1)
        self.seen: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith("/tests/"):
            return self.ordered(path.split("/")[2:], start)
        query = environ.get("QUERY_STRING", "")
        self.seen.append(f"{environ['REQUEST_METHOD']} {path}?{query} {environ.get('HTTP_RANGE', '')}")
        if self.every and next(self.count) % self.every == 0:
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Connection", "close")])
            return [b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>"]
        return self.app(environ, start)

    def ordered(self, words: list[str], start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        if words[0] == "fail":
            self.every = int(words[1])
            return [b""]
        seen, self.seen = self.seen, []
        return ["\n".join(seen).encode()]


if __name__ == "__main__":
    app = Middleware(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
