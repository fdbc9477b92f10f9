"""W&B's server as far as its client asks: runs by id, and the lines of their history.

A run that is there already is told to a client that resumes it, as the real one does. Everything a client sends
to be stored is accepted; files, console output and telemetry are thrown away.
"""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Serves on loopback from when it is made to `close`.

    Attributes:
        history: of each run, by id, the rows it logged.
        sessions: how often a client said that it starts or resumes a run, by id.
        keys: the API keys that came along.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.sessions: dict[str, int] = {}
        self.keys: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                pass

            def do_GET(self) -> None:
                self._answer({})

            def do_PUT(self) -> None:
                self._body()
                self._answer({})

            def do_POST(self) -> None:
                outer.keys.add(self.headers.get("Authorization", ""))
                try:
                    sent = json.loads(self._body())
                except ValueError:
                    sent = {}
                if self.path.endswith("/graphql"):
                    self._answer({"data": outer.graphql(sent["query"], sent.get("variables", {}))})
                    return
                if self.path.endswith("/file_stream"):
                    outer.stored(self.path.split("/")[-2], sent)
                self._answer({})

            def _body(self) -> bytes:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

            def _answer(self, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def stored(self, run: str, sent: dict[str, Any]) -> None:
        """Take lines of history at the place where the client puts them."""
        lines = sent.get("files", {}).get("wandb-history.jsonl")
        if lines:
            self.history.setdefault(run, [])[lines["offset"] :] = map(json.loads, lines["content"])

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answers to the queries and mutations of a run's life."""
        if "upsertBucket" in query:
            return {"upsertBucket": self._upsert(variables)}
        if "createRunFiles" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/upload/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "model(" in query:
            entity = {"id": "e", "name": "team"}
            bucket = self._bucket(variables["name"])
            return {"model": {"id": "p", "name": "project", "entity": entity, "bucket": bucket}}
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "team", "flags": "{}", "teams": {"edges": []}}}
        return {}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        new = name not in self.history
        self.history.setdefault(name, [])
        if not variables.get("summaryMetrics"):
            self.sessions[name] = self.sessions.get(name, 0) + 1
        project = {"id": "p", "name": "project", "entity": {"id": "e", "name": "team"}}
        bucket = {"id": name, "name": name, "displayName": name, "config": "{}", "project": project}
        return {"bucket": {**bucket, "historyLineCount": len(self.history[name])}, "inserted": new}

    def _bucket(self, name: str) -> dict[str, Any] | None:
        if name not in self.history:
            return None
        rows = self.history[name]
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "summaryMetrics": "{}",
            "logLineCount": 0,
            "historyLineCount": len(rows),
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "config": '{"_wandb": {"value": {"t": {}}}}',
            "tags": [],
            "wandbConfig": '{"t": 1}',
        }
