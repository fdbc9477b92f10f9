"""Tokenising from and to an object store gives the files of a disk, whoever does the work, and when requests fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_support
from ray_support import RayOfTests, words_of
from s3_server import BUCKET, S3Server, s3_server
from tokens_support import variant

from nemolaunch.cli.commands.tokenize import main
from nemolaunch.system import remote


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


class Corpus:
    """An input on a disk and in the store, and what one machine makes of the first."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = variant("small", folder / "tokenizer")
        self.source = ray_support.write_mixture(folder / "in", 400)
        for path in self.source.iterdir():
            remote.put(str(path), f"{BUCKET}/in/{path.name}")
        assert main([*words_of(self.tokenizer, self.source, folder / "one"), "--workers", "1"]) == 0
        self.expected = made_in(folder / "one/preprocessed")
        self.manifest = manifest_in(folder / "one/preprocessed")

    def words(self, out: str) -> list[str]:
        words = words_of(self.tokenizer, self.source, Path("unused"))
        words[words.index("--output-dir") + 1] = out
        return [*words[: words.index("--input-dir") + 1], f"{BUCKET}/in", f"{BUCKET}/in/*.txt"]


@pytest.fixture(scope="module")
def corpus(store: S3Server, tmp_path_factory: pytest.TempPathFactory, tokens_cache: Path) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


def made_in(folder: Path) -> dict[str, bytes]:
    """The content of the outputs, and the reasons of the rejects without where their files are."""
    made = {name: (folder / name).read_bytes() for name in ray_support.FILES}
    lines = [json.loads(line) for line in made.pop("data_rejects.jsonl").splitlines()]
    made["rejects"] = repr([(Path(r["file"]).name, r["line"], r["reason"]) for r in lines]).encode()
    return made


def manifest_in(folder: Path) -> dict:
    found = json.loads((folder / "data_text_document.manifest.json").read_text())
    for source in found["sources"]:
        source["path"] = Path(source["path"]).name
    return {**found, "identity": None}


def downloaded(url: str, folder: Path) -> Path:
    """Everything below a URL, in a folder."""
    folder.mkdir()
    for file in remote.find(url):
        remote.get(file.url, str(folder / file.url.rpartition("/")[2]))
    return folder


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_the_files_of_a_disk(executor: str, corpus: Corpus, store: S3Server, tmp_path: Path) -> None:
    """From a store to a store: parts of files are fetched, and the result is uploaded; then it is known."""
    out = f"{BUCKET}/out-{executor}"
    words = [*corpus.words(out), "--staging-dir", str(tmp_path / "staging"), "--workers", "2"]
    store.requests()
    if executor == "ray":
        cluster = RayOfTests(2)  # its workers get the variables of this process
        try:
            assert main([*words, *ray_support.on_ray(cluster.address)]) == 0
        finally:
            cluster.close()
    else:
        assert main(words) == 0
    found = downloaded(f"{out}/preprocessed", tmp_path / "found")
    assert made_in(found) == corpus.expected
    assert manifest_in(found) == corpus.manifest
    assert not [path for path in tmp_path.rglob("staging/**/*") if path.is_file()]
    ranges = [line for line in store.requests() if "/in/a.jsonl" in line and "bytes=" in line]
    assert len({line.split()[2] for line in ranges if not line.endswith("bytes=0-")}) > 5
    store.requests()
    assert main(words) == 0
    assert not [line for line in store.requests() if line.startswith(("PUT", "POST"))]


def test_requests_that_fail_for_a_while(corpus: Corpus, store: S3Server, tmp_path: Path) -> None:
    words = [*corpus.words(str(tmp_path)), "--workers", "1"]
    with store.failing(40):
        assert main(words) == 0
    assert made_in(tmp_path / "preprocessed") == corpus.expected


def test_other_outputs_are_not_replaced(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.write(f"{BUCKET}/taken/preprocessed/data_text_document.idx", b"of someone else")
    words = [*corpus.words(f"{BUCKET}/taken"), "--staging-dir", str(tmp_path / "staging")]
    assert main(words) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert remote.read(f"{BUCKET}/taken/preprocessed/data_text_document.idx") == b"of someone else"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (f"{BUCKET}/nothing", "matches nothing"),
        ("s3://no-such-bucket/x", "no such object"),
        ("gs://bucket/x", "pip install 'nemolaunch[cloud]'"),
        ("ftp://host/x", "only s3://, gs://, hf:// and paths"),
    ],
)
def test_mistakes_name_what_is_wrong(
    given: str, says: str, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if given.startswith("gs:") and "gcsfs" in sys.modules:
        pytest.skip("gcsfs is installed")
    words = ["--hf-tokenizer", str(corpus.tokenizer), "--data-prefix", "x", "--output-dir", str(tmp_path)]
    assert main([*words, "--input-dir", given]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in said


def test_an_object_that_changes_stops_the_run(corpus: Corpus, store: S3Server) -> None:
    import boto3

    from nemolaunch.tokenization import sources

    client = boto3.client("s3")
    client.put_object(Bucket="bucket", Key="changing/a.jsonl", Body=b'{"text": "one"}\n')
    (before,) = sources.find([f"{BUCKET}/changing"])
    client.put_object(Bucket="bucket", Key="changing/a.jsonl", Body=b'{"text": "two"}\n')
    (after,) = sources.find([f"{BUCKET}/changing"])
    assert before.size == after.size
    assert before.modified != after.modified
