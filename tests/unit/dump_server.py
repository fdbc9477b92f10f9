"""A server on the loopback with dumps as on dumps.wikimedia.org, and a maker of small dumps in their format."""

from __future__ import annotations

import bz2
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

HEAD = """\
<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="lzh">
  <siteinfo>
    <sitename>維基大典</sitename>
    <dbname>zh_classicalwiki</dbname>
    <base>https://zh-classical.wikipedia.org/wiki/%E7%B6%AD%E5%9F%BA%E5%A4%A7%E5%85%B8:%E5%8D%B7%E9%A6%96</base>
    <generator>MediaWiki 1.45.0-wmf.1</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="-1" case="first-letter">特殊</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">議</namespace>
      <namespace key="6" case="first-letter">檔</namespace>
      <namespace key="14" case="first-letter">類</namespace>
    </namespaces>
  </siteinfo>
"""


def page(number: int, title: str, wikitext: str, *, ns: int = 0, redirect: str | None = None) -> str:
    """A page as it stands in a dump."""
    to = f'    <redirect title="{redirect}" />\n' if redirect else ""
    size = len(wikitext.encode())
    return f"""\
  <page>
    <title>{escape(title)}</title>
    <ns>{ns}</ns>
    <id>{number}</id>
{to}    <revision>
      <id>{1000 + number}</id>
      <timestamp>2026-11-01T00:00:00Z</timestamp>
      <contributor>
        <username>User</username>
        <id>7</id>
      </contributor>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="{size}" sha1="0" xml:space="preserve">{escape(wikitext)}</text>
      <sha1>0</sha1>
    </revision>
  </page>
"""


def dump(pages: list[str], per_stream: int = 100) -> bytes:
    """A multistream dump: the head, `per_stream` pages a stream, the foot."""
    groups = [pages[i : i + per_stream] for i in range(0, len(pages), per_stream)]
    return b"".join(bz2.compress(s.encode()) for s in [HEAD, *map("".join, groups), "</mediawiki>\n"])


class DumpServer(ThreadingHTTPServer):
    """Serves `files` by path (without the leading slash).

    `cuts`: after how many bytes each of the next transfers of a dump breaks off. `busy`: how many of the next
    requests are answered with 503. `no_ranges`: ignores Range. `requests`: (path, Range) of each.
    """

    daemon_threads = True

    def __init__(self, wiki: str = "zh_classicalwiki") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wiki = wiki
        self.files: dict[str, bytes] = {
            "backup-index.html": b'<a href="zh_classicalwiki/2">zh_classicalwiki</a>'
        }
        self.dates: list[str] = []
        self.cuts: list[int] = []
        self.busy = 0
        self.no_ranges = False
        self.requests: list[tuple[str, str]] = []
        self.agents: set[str] = set()
        self.hold: threading.Event | None = None
        self.cut = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def add(self, date: str, content: bytes | None) -> None:
        """A dump of that date; None: it is still being made, and its file has no checksum yet."""
        self.dates.append(date)
        name = f"{self.wiki}-{date}-pages-articles-multistream.xml.bz2"
        folder = f"{self.wiki}/{date}"
        sums = f"{'0' * 40}  {self.wiki}-{date}-site_stats.sql.gz\n"
        if content is not None:
            self.files[f"{folder}/{name}"] = content
            sums += f"{hashlib.sha1(content).hexdigest()}  {name}\n"
        self.files[f"{folder}/{self.wiki}-{date}-sha1sums.txt"] = sums.encode()
        links = "".join(f'<a href="{d}/">{d}/</a>  2026-11-01 00:00  -\n' for d in [*self.dates, "latest"])
        self.files[f"{self.wiki}/"] = f'<pre><a href="../">../</a>\n{links}</pre>'.encode()

    @property
    def url(self) -> str:
        """Address to give as `--mirror`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges(self) -> list[str]:
        """What each transfer of a dump asked for."""
        return [asked for path, asked in self.requests if path.endswith(".bz2")]

    def close(self) -> None:
        """Stop serving."""
        if self.hold:
            self.hold.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: DumpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        path, server = self.path.lstrip("/"), self.server
        server.requests.append((path, self.headers.get("Range", "")))
        server.agents.add(self.headers.get("User-Agent", ""))
        if server.busy:
            server.busy -= 1
            self._send(503, b"", {"Retry-After": "0"})
        elif path not in server.files:
            self._send(404, b"", {})
        else:
            self._send_file(path, server.files[path])

    def _send_file(self, path: str, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and not self.server.no_ranges else 0
        if start >= len(content) > 0 and start:
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        body = content[start:]
        if not path.endswith(".bz2") or not self.server.cuts:
            self._send(206 if start else 200, body, headers)
            return
        self._send(206 if start else 200, b"", {**headers, "Content-Length": str(len(body))})
        self.wfile.write(body[: self.server.cuts.pop(0)])
        self.wfile.flush()
        self.server.cut.set()
        if self.server.hold:
            self.server.hold.wait()
        self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
