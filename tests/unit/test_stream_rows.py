"""Rows of every kind of file are the same, from any row on and in any share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_support import samples, setup, texts_of, write
from unit.hub_server import COMMIT, HubServer, Repo

from nemolaunch.data.stream_spec import StreamSource, StreamSpec, with_text_key
from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.dataset_words import read_stream
from nemolaunch.stream import hub, manifest, rows
from nemolaunch.stream.manifest import Listed, Manifest
from nemolaunch.stream.order import FileShare, groups_of
from nemolaunch.stream.rows import Row, open_rows

TEXTS = texts_of("é", 90)


def read_all(listed: Listed, of: int = 1) -> list[list[Row]]:
    """Return all rows of the first file, in `of` shares."""
    file = open_rows(listed.source, listed.files[0])
    try:
        return [
            [
                row
                for group in groups_of(file.num_groups, FileShare(0, share, of))
                for row in file.read(group, None, 0)
            ]
            for share in range(of)
        ]
    finally:
        file.close()


@pytest.fixture(params=["parquet", "jsonl", "json", "jsonl.gz", "json.gz", "jsonl.zst", "dataset"])
def listed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listed:
    monkeypatch.setattr(rows, "BLOCK_BYTES", 300)  # several blocks in a small file
    monkeypatch.setattr(rows, "BATCH_ROWS", 8)
    if request.param == "dataset":
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        write(tmp_path / "data" / "train-0.parquet", TEXTS)
        source = StreamSource(name="a", dataset=str(tmp_path / "data"), text_key="text")
    else:
        source = StreamSource(
            name="a", paths=(str(write(tmp_path / f"a.{request.param}", TEXTS)),), text_key="text"
        )
    return manifest.make(StreamSpec(sources=(source,))).sources[0]


def test_all_rows_are_read(listed: Listed) -> None:
    (found,) = read_all(listed)
    assert [row.texts for row in found] == [(text,) for text in TEXTS]


@pytest.mark.parametrize("of", [2, 5, 40])
def test_shares_have_each_row_once_and_are_about_equal(listed: Listed, of: int) -> None:
    shares = read_all(listed, of)
    assert sorted(row.texts for share in shares for row in share) == sorted((text,) for text in TEXTS)
    if listed.files[0].kind in ("parquet", "gzip", "zstd", "dataset"):  # others are cut by bytes
        assert max(map(len, shares)) - min(map(len, shares)) <= 8


def test_rows_can_be_read_from_any_row_on(listed: Listed) -> None:
    file = open_rows(listed.source, listed.files[0])
    for group in groups_of(file.num_groups, FileShare(0, 1, 3)):
        whole = list(file.read(group, None, 0))
        for skip in (1, 2, len(whole), len(whole) + 3):
            assert list(file.read(group, None, skip)) == whole[skip:]
    file.close()


def test_a_list_of_files_survives_being_saved(listed: Listed, tmp_path: Path) -> None:
    before = Manifest((listed,))
    before.save(tmp_path / "files.json.gz")
    after = Manifest.load(tmp_path / "files.json.gz")
    assert after == before
    assert after.digest == before.digest


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_rows_before_the_damage_are_read(ending: str, tmp_path: Path) -> None:
    import random

    rng = random.Random(1)
    texts = ["".join(rng.choices("abcdefgh", k=2000)) for _ in range(3000)]
    path = write(tmp_path / f"a.{ending}", texts)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) * 3 // 4])
    made = samples(setup(str(tmp_path), readers=1, window=1, skip_damaged=True, seq_length=1000), 0, 5500)
    assert 2000 < len({int(row["row"]) for s in made for row in s.fed}) < 2900
    with pytest.raises(NemolaunchError, match=rf"a.{ending}: (truncated|damaged) .*--bad-data skip"):
        samples(setup(str(tmp_path), readers=1, window=1, seq_length=1000), 0, 6000)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Start a hub on the loopback with parquet and compressed JSON Lines."""
    files = {}
    for name in ("data/a.parquet", "data/b.parquet", "data/more/c.jsonl.zst", "README.md"):
        texts = texts_of(name, 50)
        files[name] = write(tmp_path / name, texts).read_bytes() if name != "README.md" else b"# hello"
    found = HubServer({"datasets/org/texts": Repo(files)})
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    hub._file_system.cache_clear()
    yield found
    hub._file_system.cache_clear()
    found.close()


def hub_stream(path: str) -> StreamSpec:
    return with_text_key(read_stream((f"hf://datasets/org/texts{path}",)), "text")


def test_files_of_the_hub_are_read_in_place(server: HubServer) -> None:
    listed = manifest.make(hub_stream("/data/*.parquet")).sources[0]
    assert [f.path for f in listed.files] == [
        f"hf://datasets/org/texts@{COMMIT}/data/{name}.parquet" for name in "ab"
    ]
    (found,) = read_all(listed)
    assert [row.texts[0] for row in found] == texts_of("data/a.parquet", 50)
    everything = manifest.make(hub_stream("")).sources[0]
    assert [f.kind for f in everything.files] == ["parquet", "parquet", "zstd"]
    (last,) = read_all(Listed(everything.source, everything.files[2:]))
    assert [row.texts[0] for row in last] == texts_of("data/more/c.jsonl.zst", 50)


def test_a_hub_that_refuses_or_has_no_such_data_is_one_sentence(server: HubServer) -> None:
    with pytest.raises(NemolaunchError, match=r"no file there ends in .jsonl"):
        manifest.make(hub_stream("/data/*.csv"))
    server.refuse = 401
    hub._file_system.cache_clear()
    with pytest.raises(NemolaunchError, match="HF_TOKEN"):
        manifest.make(hub_stream("/data/*.parquet"))


def test_a_lost_connection_is_not_damage(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    of = setup(hub_stream("/data/*.parquet"), readers=1, skip_damaged=True)
    import huggingface_hub.hf_file_system as library
    from requests import ConnectionError as Lost

    def lost(*_: object, **__: object) -> None:
        raise Lost("connection reset")

    monkeypatch.setattr(library, "http_backoff", lost)
    with pytest.raises(NemolaunchError, match=r"cannot be read: connection reset"):
        samples(of, 0, 1)


def test_a_key_inside_another_through_the_datasets_library(tmp_path: Path) -> None:
    """The same samples as from the texts one level up."""
    for name, wrap in (
        ("flat", lambda text: {"text": text}),
        ("deep", lambda text: {"data": {"text": text}}),
    ):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"id": i, **wrap(text)}) + "\n" for i, text in enumerate(texts_of("a", 20))]
        (tmp_path / name / "train.jsonl").write_text("".join(lines))
    found = []
    for name, key in (("flat", "text"), ("deep", "data.text")):
        source = StreamSource(name="d", dataset=str(tmp_path / name), text_key=key)
        found.append([s.tokens.tolist() for s in samples(setup(StreamSpec(sources=(source,))), 0, 10)])
    assert found[0] == found[1]
    with pytest.raises(NemolaunchError, match=r"no column 'other\.text'; it has id, data"):
        setup(
            StreamSpec(
                sources=(StreamSource(name="d", dataset=str(tmp_path / "deep"), text_key="other.text"),)
            )
        )


def test_the_datasets_library_reads_shard_by_shard(tmp_path: Path) -> None:
    local = tmp_path / "local"
    for name in "abc":
        write(local / f"train-{name}.parquet", texts_of(name, 20), column="body")
    source = StreamSource(name="d", dataset=str(local), text_key="body")
    of = setup(StreamSpec(sources=(source,)), readers=2)
    assert len(of.manifest.sources[0].files) == 3
    names = {
        chr(int(t)) for r in range(2) for s in samples(of, r, 40) for t in s.tokens if chr(int(t)) in "abc"
    }
    assert names == {"a", "b", "c"}
    with pytest.raises(NemolaunchError, match="has no column 'text'; it has id, body"):
        setup(StreamSpec(sources=(StreamSource(name="d", dataset=str(local)),)))
