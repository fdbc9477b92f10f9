"""`nemolaunch download hf|model|tokenizer` against a server that speaks the hub's protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.hub_server import HubServer, Repo

from nemolaunch.download.hub import Repository, select
from nemolaunch.download.presets import PRESETS

MB = 2**20
FINEWEB = Repo(
    {
        "README.md": b"about",
        "data/CC-MAIN-2024-10/000_00000.parquet": b"c" * 500,
        **{f"sample/10BT/00{n}_00000.parquet": bytes([n]) * 1000 for n in range(3)},
        **{f"sample/100BT/00{n}_00000.parquet": bytes([n]) * 1000 for n in range(3)},
    },
    {
        "license": "odc-by",
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]},
            {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
            {"config_name": "sample-100BT", "data_files": [{"split": "train", "path": "sample/100BT/*"}]},
        ],
    },
)
LLAMA = Repo(
    {
        "config.json": b"{}",
        "tokenizer.json": b'{"of": "tokenizer.json"}',
        "tokenizer_config.json": b'{"of": "tokenizer_config.json"}',
        "special_tokens_map.json": b'{"of": "special_tokens_map.json"}',
        "model-00001-of-00001.safetensors": b"w" * 100,
        "model.safetensors.index.json": b"{}",
        "consolidated.safetensors": b"w" * 100,
        "pytorch_model.bin": b"w" * 100,
        "original/consolidated.00.pth": b"w" * 100,
        "model.gguf": b"w" * 100,
    }
)


@pytest.fixture
def server() -> Iterator[HubServer]:
    repos = {
        "datasets/HuggingFaceFW/fineweb": FINEWEB,
        "meta/llama": LLAMA,
        "datasets/bigcode/starcoderdata": Repo({"python/train-0.parquet": b"p" * 10}, gated=True),
        "datasets/some/big": Repo({"train.bin": os.urandom(24 * MB)}),
    }
    server = HubServer(repos)
    yield server
    server.close()


class Hub:
    """Runner of the command with its own cache and without the caller's Hub settings."""

    def __init__(self, server: HubServer, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self.cache = folder / "hf"
        self.environment = {
            **kept, "HF_HUB_CACHE": str(self.cache), "HF_HOME": str(folder), "NO_PROXY": "127.0.0.1",
            "HF_ENDPOINT": server.url, "HF_HUB_DOWNLOAD_TIMEOUT": "60",
        }  # fmt: skip

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "nemolaunch.cli.main", "download", *map(str, words)]

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server, tmp_path)


def test_a_subset_and_nothing_else_is_downloaded_once(server: HubServer, hub: Hub) -> None:
    server.tokens.clear()
    hub.environment["HF_TOKEN"] = "hf_very-secret"
    done = hub("hf", "HuggingFaceFW/fineweb", "--subset", "sample-10BT")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[1])
    assert folder.is_relative_to(hub.cache)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        f"00{n}_00000.parquet": bytes([n]) * 1000 for n in range(3)
    }
    assert done.stdout.startswith("HuggingFaceFW/fineweb: 3 files, 3.0 kB, licence odc-by\n")
    assert f"nemolaunch tokenize --input-dir {folder}" in done.stdout
    assert server.tokens == {"Bearer hf_very-secret"}
    assert "very-secret" not in done.stdout + done.stderr
    server.transferred.clear()
    assert hub("hf", "fineweb-10BT").returncode == 0
    assert server.transferred == []


def test_patterns_within_a_subset(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    words = ("hf", "HuggingFaceFW/fineweb", "--subset", "sample-100BT", "--allow", "000_*", "002_*")
    shown = hub(*words, "--dry-run").stdout
    assert "2 files" in shown
    assert "sample/100BT/002_00000.parquet" in shown
    assert server.transferred == []
    done = hub(*words, "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(server.transferred) == ["sample/100BT/000_00000.parquet", "sample/100BT/002_00000.parquet"]
    assert (tmp_path / "out/sample/100BT/002_00000.parquet").read_bytes() == b"\2" * 1000


def test_a_model_without_its_weights_in_other_forms(server: HubServer, hub: Hub) -> None:
    done = hub("model", "meta/llama")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json",
        "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_a_tokenizer_alone(server: HubServer, hub: Hub) -> None:
    done = hub("tokenizer", "meta/llama")
    assert sorted(server.transferred) == [
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (Path(done.stdout.splitlines()[-1]) / "tokenizer.json").exists()


def test_an_interrupted_transfer_is_reported_and_resumed_by_the_next_call(
    server: HubServer, hub: Hub
) -> None:
    """A transfer keeps what it received in pieces of 10 MB."""
    server.cut_after = 15 * MB
    broken = hub("hf", "some/big")
    assert broken.returncode == 1
    assert "the same command resumes" in broken.stderr
    assert "Traceback" not in broken.stderr
    server.cut_after = None
    server.ranges.clear()
    done = hub("hf", "some/big")
    assert done.returncode == 0, done.stderr
    assert server.ranges
    assert min(server.ranges) >= 10 * MB
    content = (Path(done.stdout.splitlines()[1]) / "train.bin").read_bytes()
    assert content == server.repos["datasets/some/big"].files["train.bin"]


def test_a_killed_download_is_resumed(server: HubServer, hub: Hub) -> None:
    server.cut_after, server.hang = 15 * MB, True
    process = subprocess.Popen(
        hub.command("hf", "some/big"),
        env=hub.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert server.cut.wait(60)
    while not any(path.stat().st_size >= 10 * MB for path in hub.cache.rglob("*.incomplete")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    server.resume.set()
    server.cut_after = None
    server.ranges.clear()
    assert hub("hf", "some/big").returncode == 0
    assert server.ranges == [10 * MB]


def test_a_full_disk_is_reported_before_anything_is_downloaded(server: HubServer, hub: Hub) -> None:
    """The server announces more than any disk holds."""

    class Huge(bytes):
        def __len__(self) -> int:
            return 10**18

    server.repos["datasets/some/huge"] = Repo({"a.parquet": Huge()})
    done = hub("hf", "some/huge")
    assert done.returncode == 1
    assert "1,000,000,000.0 GB have to be downloaded" in done.stderr
    assert "--allow" in done.stderr
    assert server.transferred == []


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("hf", "HuggingFaceFW/fineweb", "--subset", "sample-10B"), 2, "it has sample-10BT"),
        (("hf", "HuggingFaceFW/fineweb", "--allow", "*.jsonl"), 2, "matches *.jsonl; it has README.md"),
        (("hf", "fineweb10bt"), 2, "did you mean fineweb-10bt"),
        (("hf", "nobody/nothing"), 1, "has no dataset nobody/nothing, or it is private"),
        (("hf", "a/b/c"), 2, "is not the name of a repository"),
        (("hf", "HuggingFaceFW/fineweb", "--revision", "v9"), 2, "has no revision of that name"),
        (("hf", "starcoderdata"), 1, "accept its terms on"),
        (("model", "HuggingFaceFW/fineweb"), 1, "has no model HuggingFaceFW/fineweb"),
        (("tokenizer", "meta/llama", "--workers", "0"), 2, "--workers 0: must be 1 or more"),
        (("model", "meta/llama", "--endpoint", "mirror"), 2, "--endpoint mirror: must be a URL"),
    ],
)
def test_a_mistake_is_reported_with_what_to_do(
    server: HubServer, hub: Hub, words: tuple[str, ...], code: int, complaint: str
) -> None:
    done = hub(*words)
    assert complaint in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_server_that_refuses_names_the_token_variable(server: HubServer, hub: Hub) -> None:
    server.refuse = 403
    done = hub("hf", "HuggingFaceFW/fineweb")
    assert done.returncode == 1
    assert "HF_TOKEN" in done.stderr


def test_an_unreachable_server_is_one_sentence_that_says_what_to_do(server: HubServer, hub: Hub) -> None:
    server.close()
    done = hub("hf", "HuggingFaceFW/fineweb")
    assert done.returncode == 1
    assert "no connection" in done.stderr
    assert "HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_known_names_are_listed_with_size_and_licence(hub: Hub) -> None:
    shown = hub("hf", "--list").stdout
    for name, preset in PRESETS.items():
        (line,) = [line for line in shown.splitlines() if line.split()[0] == name]
        assert preset.repo in line
        assert preset.size in line
        assert preset.licence in line


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"data_files": "train.jsonl"}, ["train.jsonl"]),
        ({"data_files": ["a/*.jsonl", "train.jsonl"]}, ["a/1.jsonl", "train.jsonl"]),
        ({"data_files": [{"split": "train", "path": ["a/*", "b/*"]}]}, ["a/1.jsonl", "b/1.jsonl"]),
        ({"data_dir": "b"}, ["b/1.jsonl"]),
        ({"data_dir": "a", "data_files": [{"split": "train", "path": "*.jsonl"}]}, ["a/1.jsonl"]),
    ],
)
def test_every_way_a_card_names_the_files_of_a_subset(config: dict[str, Any], expected: list[str]) -> None:
    from nemolaunch.download.hub import _patterns

    files = dict.fromkeys(("README.md", "a/1.jsonl", "b/1.jsonl", "train.jsonl"), 1)
    repository = Repository(
        name="x/y", kind="dataset", revision="main", files=files, subsets={"it": _patterns(config)}
    )
    assert list(select(repository, "it", []).files) == expected


def test_a_folder_is_a_subset_where_the_card_names_none() -> None:
    files = dict.fromkeys(("train/chunk1/a.jsonl.zst", "train/chunk2/b.jsonl.zst", "test/c.jsonl.zst"), 1)
    repository = Repository(name="x/y", kind="dataset", revision="main", files=files)
    assert len(select(repository, "train", []).files) == 2
    assert len(select(repository, "train/chunk1", []).files) == 1
    assert len(select(repository, "default", []).files) == 3
