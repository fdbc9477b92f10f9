"""`nemolaunch download wiki` against a real server with real dumps: its output, lost connections, kills and damage."""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.dump_server import DumpServer, dump, page

from nemolaunch.download import convert, dumps, wiki
from nemolaunch.download.multistream import Bz2Stream, split, unpack
from nemolaunch.download.transfer import Client
from nemolaunch.errors import NemolaunchError, UsageError

DOOR = Path(__file__).parents[2] / "download_example_data" / "download_wiki.py"
STEM = "zh_classicalwiki-20261001-pages-articles-multistream"
POEMS = [f"白日依山盡，黃河入海流。第{n}首，欲窮千里目，更上一層樓。" for n in range(30)]
PAGES = [page(n, f"題 {n}", f"{{{{詩}}}}'''{poem}'''[[類:詩]]") for n, poem in enumerate(POEMS)]
PAGES[3] = page(3, "向", "#REDIRECT [[題 4]]", redirect="題 4")
PAGES[4] = page(4, "空", "{{空}}<!-- 無 -->[[類:空]]")
PAGES[5] = page(5, "議:題", "何也", ns=1)
KEPT = [n for n in range(30) if n not in (3, 4, 5)]
CONTENT = dump(PAGES, per_stream=4)


@pytest.fixture
def server() -> Iterator[DumpServer]:
    server = DumpServer()
    server.add("20260901", dump(PAGES[:1]))
    server.add("20261001", CONTENT)
    server.add("20261101", None)
    yield server
    server.close()


def request(server: DumpServer, folder: Path, **values: object) -> wiki.WikiRequest:
    defaults: dict[str, Any] = {"language": "zh-classical", "output_dir": folder, "mirror": server.url}
    return wiki.WikiRequest(**{**defaults, "workers": 2, **values})


def make(server: DumpServer, folder: Path, **values: object) -> tuple[Path, convert.DumpProgress | None]:
    asked, client = request(server, folder, **values), Client(pause_s=0)
    dump = dumps.find(client, asked.language, asked.date, asked.mirror)
    return wiki.make(asked, client, dump, wiki.Watcher())


def door(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOOR), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "NO_PROXY": "127.0.0.1"}
    )


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_latest_complete_dump_becomes_articles_in_order(server: DumpServer, tmp_path: Path) -> None:
    done = door("--mirror", server.url, "--output_dir", tmp_path / "out", "--contact", "me@example.org")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{STEM}.jsonl"]
    written = read(tmp_path / "out" / f"{STEM}.jsonl")
    assert [row["text"] for row in written] == [POEMS[n] for n in KEPT]
    assert written[1] == {
        "text": POEMS[1],
        "title": "題 1",
        "url": "https://zh-classical.wikipedia.org/wiki/%E9%A1%8C_1",
        "id": "1",
    }
    assert "27 articles" in done.stdout
    assert "dropped: 1 redirects, 1 empty pages, 1 other pages" in done.stdout
    (agent,) = server.agents
    assert agent.startswith("nemolaunch/")
    assert "me@example.org" in agent


def test_an_interrupted_transfer_is_resumed_at_the_byte(server: DumpServer, tmp_path: Path) -> None:
    server.cuts = [1000, 500, 0]
    path, _ = make(server, tmp_path)
    assert server.ranges == ["", "bytes=1000-", "bytes=1500-", "bytes=1500-"]
    assert len(read(path)) == len(KEPT)


def test_a_server_that_is_busy_or_does_not_support_ranges(server: DumpServer, tmp_path: Path) -> None:
    server.busy, server.no_ranges, server.cuts = 2, True, [1000]
    path, _ = make(server, tmp_path, keep_dump=True)
    assert (tmp_path / f"{STEM}.xml.bz2").read_bytes() == CONTENT
    assert len(read(path)) == len(KEPT)


def test_a_killed_download_is_resumed(server: DumpServer, tmp_path: Path) -> None:
    server.cuts, server.hold = [2000], threading.Event()
    words = ["--mirror", server.url, "--output-dir", str(tmp_path), "--workers", "1"]
    process = subprocess.Popen([sys.executable, str(DOOR), *words], stderr=subprocess.DEVNULL)
    part = tmp_path / f".{STEM}.xml.bz2.part"
    assert server.cut.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("*.jsonl"))
    had = part.stat().st_size
    server.hold.set()
    server.requests.clear()
    path, _ = make(server, tmp_path)
    assert server.ranges == [f"bytes={had}-" if had else ""]
    assert len(read(path)) == len(KEPT)


def test_a_wrong_checksum_is_tried_again_once(server: DumpServer, tmp_path: Path) -> None:
    part = tmp_path / f".{STEM}.xml.bz2.part"
    part.write_bytes(b"BZh9 something else")
    path, _ = make(server, tmp_path)
    assert server.ranges == ["bytes=19-", ""]
    assert len(read(path)) == len(KEPT)

    sums = f"zh_classicalwiki/20261001/{STEM.rpartition('-pages')[0]}-sha1sums.txt"
    server.files[sums] = server.files[sums].replace(hashlib.sha1(CONTENT).hexdigest().encode(), b"f" * 40)
    with pytest.raises(
        NemolaunchError, match=f"has SHA-1 {hashlib.sha1(CONTENT).hexdigest()}, but its checksum file"
    ):
        make(server, tmp_path / "again")
    assert not list((tmp_path / "again").iterdir())


def damaged() -> bytes:
    """Return the dump with a changed byte in its third stream, which its publisher has not noticed."""
    third = list(split([CONTENT]))[2]
    at = third.offset + len(third.data) // 2
    return CONTENT[:at] + bytes([CONTENT[at] ^ 0xFF]) + CONTENT[at + 1 :]


def test_a_damaged_block_stops_the_run_or_is_skipped_with_its_place(
    server: DumpServer, tmp_path: Path
) -> None:
    server.add("20261115", damaged())
    offset = list(split([CONTENT]))[2].offset
    with pytest.raises(NemolaunchError, match=f"damaged between bytes {offset:,} and .*--on-error skip"):
        make(server, tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))

    done = door("--mirror", server.url, "--output-dir", tmp_path, "--on-error", "skip")
    assert done.returncode == 0, done.stderr
    assert "1 damaged parts of the dump were skipped" in done.stderr
    written = tmp_path / f"{STEM.replace('20261001', '20261115')}.jsonl"
    assert [row["text"] for row in read(written)] == [POEMS[n] for n in KEPT if n not in (6, 7)]
    (reject,) = read(wiki.rejects_of(written))
    assert reject["byte"] == offset
    assert "damaged bzip2 data" in str(reject["reason"])


def test_a_stopped_conversion_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "SAVE_EVERY_S", 0.0)
    convert.convert(iter(split([CONTENT])), tmp_path / "whole", workers=1)

    class Killed(Exception):
        pass

    def kill_after(streams: int) -> Callable[[convert.DumpProgress], None]:
        left = iter(range(streams))

        def report(_: convert.DumpProgress) -> None:
            if next(left, None) is None:
                raise Killed

        return report

    for streams in (1, 2, 3):
        with pytest.raises(Killed):
            convert.convert(iter(split([CONTENT])), tmp_path / "again", workers=1, report=kill_after(streams))
        with open(tmp_path / ".again.part", "ab") as file:
            file.write(b'{"text": "cut o')
    last = convert.convert(iter(split([CONTENT])), tmp_path / "again", workers=1)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
    assert last.counts == convert.PageCounts(articles=27, redirects=1, empty=1, other=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "whole"]


def test_a_limit_downloads_no_more_than_it_needs(server: DumpServer, tmp_path: Path) -> None:
    noise = "".join(chr(0x4E00 + b) for b in os.urandom(40_000))
    pages = [*PAGES[:3], *(page(n, f"長{n}", noise[n:]) for n in range(100, 160))]
    server.add("20261120", dump(pages, per_stream=1))
    server.hold, server.cuts = threading.Event(), [1_500_000]
    begin = time.monotonic()
    path, _ = make(server, tmp_path, limit=2)
    assert time.monotonic() - begin < 60, "it did not wait for the rest"
    assert path.name == "zh_classicalwiki-20261120-pages-articles-multistream.first-2.jsonl"
    assert [row["text"] for row in read(path)] == POEMS[:2]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_existing_output_is_not_written_again(server: DumpServer, tmp_path: Path) -> None:
    path, _ = make(server, tmp_path)
    server.requests.clear()
    assert make(server, tmp_path) == (path, None)
    assert server.ranges == []
    assert make(server, tmp_path, overwrite=True)[1] is not None


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--language", "zh-clasical"), "did you mean zh-classical"),
        (("--language", "中文"), "is not a code like en"),
        (("--date", "20200101"), "dates: 20261101, 20261001, 20260901"),
        (("--date", "20261101"), "no complete pages-articles-multistream dump"),
        (("--date", "October"), "neither latest nor a date like"),
        (("--limit", "0"), "--limit 0: must be 1 or more"),
        (("--mirror", "mirror"), "--mirror mirror: must be a URL"),
    ],
)
def test_a_wrong_flag_is_reported_with_what_to_do(
    server: DumpServer, tmp_path: Path, flags: tuple[str, str], complaint: str
) -> None:
    done = door("--mirror", server.url, "--output-dir", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unreachable_server_is_one_sentence_that_says_what_to_do(
    server: DumpServer, tmp_path: Path
) -> None:
    server.close()
    with pytest.raises(NemolaunchError, match=r"no connection .*, 6 times in a row.*--mirror.*HTTPS_PROXY"):
        make(server, tmp_path)


def test_what_is_not_a_dump_is_refused(server: DumpServer, tmp_path: Path) -> None:
    server.add("20261125", bz2.compress(b"<html>sign in</html>"))
    with pytest.raises(NemolaunchError, match="not a multistream dump of Wikimedia: it has no <siteinfo>"):
        make(server, tmp_path)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "enwiki"),
        ("zh-classical", "zh_classicalwiki"),
        ("zh_classical", "zh_classicalwiki"),
        ("zh_classicalwiki", "zh_classicalwiki"),
        ("lzh", "zh_classicalwiki"),
        ("be-tarask", "be_x_oldwiki"),
        ("simple", "simplewiki"),
    ],
)
def test_the_database_of_a_language(language: str, expected: str) -> None:
    assert dumps.wiki_of(language) == expected


def test_a_path_is_not_a_language() -> None:
    with pytest.raises(UsageError):
        dumps.wiki_of("../etc")


@given(st.lists(st.integers(1, 400), min_size=1), st.binary(max_size=30))
def test_streams_do_not_depend_on_how_the_bytes_arrive(sizes: list[int], before: bytes) -> None:
    contents = [f"stream {n} ".encode() * n for n in range(1, 6)]
    packed = before + b"".join(map(bz2.compress, contents))
    chunks: list[bytes] = []
    at = 0
    while at < len(packed):
        chunks.append(packed[at : at + sizes[len(chunks) % len(sizes)]])
        at += len(chunks[-1])
    found = list(split(chunks))
    assert [unpack(stream) for stream in found] == contents
    assert found == [Bz2Stream(s.offset, packed[s.offset : s.end]) for s in found]
