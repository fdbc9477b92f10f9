"""`nemolaunch download` against a real server: what it writes, and what is left when it is interrupted."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

DOOR = Path(__file__).parents[2] / "download_example_data" / "download_wiki.py"
MB = 2**20


def parquet(articles: list[dict[str, str]], compression: str = "snappy") -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(articles), buffer, compression=compression)
    return buffer.getvalue()


def article(number: int, text: str) -> dict[str, str]:
    return {"id": str(number), "url": f"https://example.org/{number}", "title": f"題{number}", "text": text}


POEMS = [article(n, f"第{n}首\n\n白日依山盡，黃河入海流。") for n in range(5)]


@pytest.fixture
def server() -> Iterator[HubServer]:
    first, second = POEMS[:2], [POEMS[2], article(9, ""), *POEMS[3:]]
    files = {
        "README.md": b"about",
        "20231101.zh-classical/train-00000-of-00002.parquet": parquet(first),
        "20231101.zh-classical/train-00001-of-00002.parquet": parquet(second),
        "20231101.zh-yue/train-00000-of-00001.parquet": parquet(first),
    }
    server = HubServer(files)
    yield server
    server.close()


@pytest.fixture
def big_server() -> Iterator[HubServer]:
    """One file of 24 MB: a transfer keeps what it got in pieces of 10 MB."""
    source = random.Random(0)
    articles = [article(n, source.randbytes(MB).hex()) for n in range(12)]
    server = HubServer({"20231101.en/train-00000-of-00001.parquet": parquet(articles, "none")})
    yield server
    server.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The caller's environment without anything that would lead elsewhere than to the loopback server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}


def command(*flags: str | Path) -> list[str]:
    return [sys.executable, str(DOOR), *map(str, flags)]


def run(environment: dict[str, str], *flags: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*flags), env=environment, capture_output=True, text=True, check=False)


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_articles_with_text_are_written_in_order(server, environment, tmp_path):
    done = run(environment, "--endpoint", server.url, "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["wikipedia-20231101-zh-classical.jsonl"]
    written = read(tmp_path / "out" / "wikipedia-20231101-zh-classical.jsonl")
    assert written == POEMS
    assert "5 articles" in done.stdout


def test_limits_stop_early_and_fetch_no_file_more_than_needed(server, environment, tmp_path):
    run(environment, "--endpoint", server.url, "--output-dir", tmp_path, "--url-limit", "1")
    assert read(tmp_path / "wikipedia-20231101-zh-classical.jsonl") == POEMS[:2]
    run(environment, "--endpoint", server.url, "--output_dir", tmp_path, "--limit", "1")
    assert read(tmp_path / "wikipedia-20231101-zh-classical.jsonl") == POEMS[:1]
    assert len(server.ranges) == 1, "only the first file was ever transferred, and once"


def test_endpoint_and_token_come_from_the_environment_unseen(server, environment, tmp_path):
    environment |= {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_very-secret"}
    done = run(environment, "--output-dir", tmp_path / "out", "--language", "zh_classical")
    assert done.returncode == 0, done.stderr
    assert server.tokens == {"Bearer hf_very-secret"}
    seen = done.stdout + done.stderr + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "very-secret" not in seen


def test_a_broken_transfer_says_so_and_the_next_call_continues_it(big_server, environment, tmp_path):
    flags = ("--endpoint", big_server.url, "--output-dir", tmp_path / "out", "--language", "en")
    big_server.cut_after = 15 * MB
    broken = run(environment, *flags)
    assert broken.returncode == 1
    assert "the transfer ended early" in broken.stderr
    assert "the same command continues" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert not list((tmp_path / "out").glob("*"))

    big_server.cut_after = None
    big_server.ranges.clear()
    assert run(environment, *flags).returncode == 0
    assert big_server.ranges == [15 * MB]
    assert len(read(tmp_path / "out" / "wikipedia-20231101-en.jsonl")) == 12


def test_a_killed_download_leaves_no_output_and_is_continued(big_server, environment, tmp_path):
    flags = ("--endpoint", big_server.url, "--output-dir", tmp_path / "out", "--language", "en")
    big_server.cut_after, big_server.hang = 15 * MB, True
    process = subprocess.Popen(command(*flags), env=environment, stderr=subprocess.DEVNULL)
    assert big_server.cut.wait(60)
    wait_for_partial_file(Path(environment["HF_HOME"]), 10 * MB)
    process.kill()
    process.wait()
    assert not list((tmp_path / "out").glob("*.jsonl"))

    big_server.resume.set()
    big_server.cut_after = None
    big_server.ranges.clear()
    assert run(environment, *flags).returncode == 0
    assert big_server.ranges == [10 * MB]
    assert [article["id"] for article in read(tmp_path / "out" / "wikipedia-20231101-en.jsonl")] == [
        str(n) for n in range(12)
    ]


def wait_for_partial_file(cache: Path, size_bytes: int) -> None:
    while not any(path.stat().st_size >= size_bytes for path in cache.rglob("*.incomplete")):
        time.sleep(0.05)


def test_an_unreachable_server_is_one_sentence_that_says_what_to_do(server, environment, tmp_path):
    url = server.url
    server.close()
    done = run(environment, "--endpoint", url, "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot download from {url}: no connection")
    assert "--endpoint" in done.stderr
    assert "HTTPS_PROXY" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--language", "zh-clasical"), "did you mean zh-classical"),
        (("--snapshot", "20200101"), "there is 20231101"),
        (("--limit", "0"), "--limit 0: must be 1 or more"),
        (("--url-limit", "-1"), "--url-limit -1: must be 1 or more"),
        (("--endpoint", "mirror"), "--endpoint mirror: must be an address"),
    ],
)
def test_a_wrong_flag_is_named_with_what_would_do(server, environment, tmp_path, flags, complaint):
    done = run(environment, "--endpoint", server.url, "--output-dir", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_server_that_refuses_names_the_token_variable(server, environment, tmp_path):
    server.refuse = 401
    done = run(environment, "--endpoint", server.url, "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    assert "HF_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_snapshot_keeps_the_earlier_output(server, environment, tmp_path):
    target = tmp_path / "wikipedia-20231101-zh-yue.jsonl"
    target.write_text('{"text": "old"}\n')
    server.files["20231101.zh-yue/train-00000-of-00001.parquet"] = b"<html>sign in</html>"
    done = run(environment, "--endpoint", server.url, "--output-dir", tmp_path, "--language", "zh-yue")
    assert done.returncode == 1
    assert "is not a Wikipedia snapshot" in done.stderr
    assert read(target) == [{"text": "old"}]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [target.name]
