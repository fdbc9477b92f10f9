"""Tokenising on a real Ray cluster gives the files of one machine, whatever is killed meanwhile."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_support
from ray_support import RayOfTests, left_behind, made_by, meanwhile, num_done, on_ray, once, words_of
from tokens_support import variant

from nemolaunch.cli.commands.tokenize import main


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayOfTests]:
    found = RayOfTests(2)
    yield found
    found.close()


class Corpus:
    """A tokenizer, an input, and what one machine makes of it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = variant("small", folder / "tokenizer")
        self.source = ray_support.write_mixture(folder / "in")
        assert main([*words_of(self.tokenizer, self.source, folder / "one"), "--workers", "1"]) == 0
        self.expected = made_by(folder / "one")
        self.manifest = manifest(folder / "one")

    def words(self, out: Path) -> list[str]:
        return words_of(self.tokenizer, self.source, out)


def manifest(out: Path) -> dict:
    return json.loads((out / "preprocessed" / "data_text_document.manifest.json").read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tokens_cache: Path) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("unit_bytes", [60_000, pytest.param(100_000_000, marks=pytest.mark.long)])
def test_the_files_of_one_machine(
    unit_bytes: int, cluster: RayOfTests, corpus: Corpus, tmp_path: Path
) -> None:
    """In 20 units and more, or one; line numbers of bad records and hashes of divided files are the same."""
    assert main([*corpus.words(tmp_path), *on_ray(cluster.address, unit_bytes)]) == 0
    assert made_by(tmp_path) == corpus.expected
    assert manifest(tmp_path) == corpus.manifest
    assert left_behind(tmp_path) == []


def test_a_killed_worker_costs_its_unit_only(cluster: RayOfTests, corpus: Corpus, tmp_path: Path) -> None:
    chance = random.Random(1)
    with meanwhile(lambda: once(lambda: num_done(tmp_path) > 3, lambda: cluster.kill_worker(chance))):
        assert main([*corpus.words(tmp_path), *on_ray(cluster.address)]) == 0
    assert made_by(tmp_path) == corpus.expected
    assert left_behind(tmp_path) == []


def test_a_killed_node_costs_its_units_only(
    cluster: RayOfTests, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(1)
    with meanwhile(lambda: once(lambda: num_done(tmp_path) > 3, lambda: cluster.kill_node(chance))):
        assert main([*corpus.words(tmp_path), *on_ray(cluster.address)]) == 0
    assert "retries remaining" not in capsys.readouterr().out
    cluster.replace_lost()
    assert made_by(tmp_path) == corpus.expected
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("then", ["ray", pytest.param("local", marks=pytest.mark.long)])
def test_a_killed_command_is_run_again(
    then: str, cluster: RayOfTests, corpus: Corpus, tmp_path: Path
) -> None:
    """What is done is kept; one machine finishes it, too. A unit that is joined already is not done again."""
    words = corpus.words(tmp_path)
    process = ray_support.driver([*words, *on_ray(cluster.address)])
    once(lambda: num_done(tmp_path) > 3, lambda: True, process)
    process.kill()
    process.wait()
    assert num_done(tmp_path) > 3
    assert not (tmp_path / "preprocessed" / "data_text_document.idx").exists()
    assert main([*words, *(on_ray(cluster.address, 1) if then == "ray" else ["--workers", "1"])]) == 0
    assert made_by(tmp_path) == corpus.expected
    assert left_behind(tmp_path) == []


def test_a_cluster_of_its_own_stops_at_a_bad_record(
    corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is the one of a single machine: the first bad record of the input, by its line in the file."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = [*corpus.words(tmp_path), "--on-error", "stop"]
    assert main([*words, "--workers", "1"]) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert "a.jsonl, line 667: invalid JSON" in said
    assert main([*words, "--workers", "2", "--executor", "ray", "--unit-bytes", "60000"]) == 1
    found = capfd.readouterr().err
    assert found.splitlines()[-1] == said
    assert "Traceback" not in found
    assert {path.name for path in (tmp_path / "preprocessed").glob("data_*")} == {"data_rejects.jsonl"}


@pytest.mark.long
def test_input_that_changes_is_refused(
    cluster: RayOfTests, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A unit checks that its node sees the files that were there when the run began."""
    source = tmp_path / "in"
    shutil.copytree(corpus.source, source)
    words = [*words_of(corpus.tokenizer, source, tmp_path), *on_ray(cluster.address)]
    process = ray_support.driver(words)
    once(lambda: num_done(tmp_path) > 0, lambda: True, process)
    with open(source / "c.parquet", "ab") as file:
        file.write(b"more")
    _, said = process.communicate()
    assert process.returncode == 1
    assert "c.parquet" in said
    assert "all machines must see the same files" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_trials_with_random_kills(tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(Path(ray_support.__file__).with_name("ray_kill_trials.py")),
        str(tmp_path / "trials"),
    ]
    done = subprocess.run([*words, "10"], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["trials"] == 10, done.stderr
    assert found["faults"] == []


def test_mistakes(tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    words = corpus.words(tmp_path)
    assert main([*words, "--executor", "ray", "--ray-address", "127.0.0.1:1"]) == 2
    assert "--ray-address 127.0.0.1:1: there is no Ray cluster" in capsys.readouterr().err
    assert main([*words, "--executor", "ray", "--ray-address", "ray://127.0.0.1:1"]) == 2
    assert "Ray's client is not supported" in capsys.readouterr().err
    assert main([*words, "--ray-address", "auto"]) == 2
    assert "--ray-address needs --executor ray" in capsys.readouterr().err
    assert main([*words, "--unit-bytes", "5"]) == 2
    assert "--unit-bytes needs --executor ray or slurm" in capsys.readouterr().err
