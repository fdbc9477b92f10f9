"""Tokenising a data set on the Hugging Face Hub gives the files of a disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray_support
from hub_server import HubServer, Repo
from ray_support import words_of
from tokens_support import variant

OUTPUTS = [name for name in ray_support.FILES if name.endswith((".bin", ".idx"))]


def run(words: list[str], hub: HubServer) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the library reads the hub's address once."""
    command = [sys.executable, "-m", "nemolaunch.cli.main", "tokenize", *words]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_data_set_on_the_hub(tmp_path: Path) -> None:
    """JSON Lines in pieces, parquet, compressed and small files; and one sentence if the hub refuses."""
    tokenizer = variant("small", tmp_path / "tokenizer")
    source = ray_support.write_mixture(tmp_path / "in", 400)
    files = {f"text/{path.name}": path.read_bytes() for path in sorted(source.iterdir())}
    hub = HubServer({"datasets/org/texts": Repo(files)})
    try:
        here = words_of(tokenizer, source, tmp_path / "disk")
        assert run(here, hub).returncode == 0
        there = words_of(tokenizer, source, tmp_path / "hub")
        place = there.index("--input-dir") + 1
        assert there[place] == str(source)
        on_hub = [word.replace(str(source), "hf://datasets/org/texts/text") for word in there]
        done = run(on_hub, hub)
        assert done.returncode == 0, done.stderr
        for name in OUTPUTS:
            made = [(tmp_path / where / "preprocessed" / name).read_bytes() for where in ("disk", "hub")]
            assert made[0] == made[1], name
            assert made[0]
        hub.refuse = 401
        again = [word.replace(str(tmp_path / "hub"), str(tmp_path / "refused")) for word in on_hub]
        refused = run(again, hub)
        assert refused.returncode == 2
        assert "--input-dir hf://datasets/org/texts/text" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert not list((tmp_path / "refused").rglob("*.bin"))
    finally:
        hub.close()


@pytest.mark.parametrize("path", ["nothing", "*.jsonl"])
def test_nothing_there(path: str, tmp_path: Path) -> None:
    hub = HubServer({"datasets/org/texts": Repo({"text/a.txt": b"one"})})
    try:
        tokenizer = variant("small", tmp_path / "tokenizer")
        words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "x", "--output-dir", str(tmp_path)]
        done = run([*words, "--input-dir", f"hf://datasets/org/texts/{path}"], hub)
        assert done.returncode == 2
        assert "matches nothing" in done.stderr
    finally:
        hub.close()
