"""A real podman whose containers are made of this machine's own files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bridge.conftest import PYTHON

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/nemolaunch-test:1"
IMAGE_OF_BRIDGE = "localhost/nemolaunch-test:bridge"
# As NVIDIA names the last image with NeMo 2, and one that has only Megatron-Bridge
OLD, NEW = "nvcr.io/nvidia/nemo:26.02", "nvcr.io/nvidia/nemo:26.08"
# By the name of an image, the environment that its programs are of
IMAGES = {
    IMAGE: Path(sys.executable).parent,
    OLD: Path(sys.executable).parent,
    IMAGE_OF_BRIDGE: PYTHON.parent,
    NEW: PYTHON.parent,
}
ENGINE_TIMEOUT_S = 120
needs_bridge = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no .venv-bridge; `make install-bridge` builds it"
)
# The image has the folders of a root file system; the libraries and Python are mounted from this machine
FOLDERS = ("proc", "sys", "dev", "usr", "tmp", "root", "etc", "run", "var")
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}


def mounts() -> list[str]:
    """What a container needs of this machine to run this Python, and that of Megatron-Bridge."""
    bridge = PYTHON.parents[1]
    others = (os.path.realpath(bridge), str(bridge)) if bridge.exists() else ()
    paths = ("/usr", sys.base_prefix, os.path.realpath(sys.prefix), sys.prefix, *others)
    return [f"{path}:{path}:ro" for path in dict.fromkeys(paths)]


class Podman:
    """podman with storage, images and settings of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        storage, settings = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/running"\n'
        )
        # a virtual machine without CAP_SYS_RESOURCE refuses podman's own limits
        settings.write_text(
            '[engine]\nruntime = "runc"\n'
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            f"volumes = {json.dumps(mounts())}\n"
        )
        self.environment = {
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(settings),
            "PYTHONPATH": str(ROOT / "src"),
        }

    def says(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of podman."""
        return subprocess.run(
            ["podman", *words],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=ENGINE_TIMEOUT_S,
        )

    def build(self) -> None:
        """Make the images."""
        root = self.folder / "root"
        for name in FOLDERS:
            (root / name).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for name, target in LINKS.items():
            (root / name).symlink_to(target)
        shutil.copy("/etc/passwd", root / "etc")
        archive = shutil.make_archive(str(self.folder / "root"), "tar", root)
        for image, programs in IMAGES.items():
            path = f"ENV PATH={programs}:/usr/local/bin:/usr/bin:/bin"
            made = self.says("import", "--change", path, archive, image)
            assert made.returncode == 0, made.stderr

    def probe(self) -> str:
        """Return why no container can be started here; empty if one can."""
        words = ["run", "--rm", "--network", "host", "--ulimit", "host", IMAGE, "true"]
        done = self.says(*words)
        return done.stderr.strip() if done.returncode else ""

    def running(self) -> str:
        """Return the id of the only running container; empty if there is none."""
        return self.says("ps", "--quiet").stdout.strip()


class Command:
    """Our own command, as a user types it, with podman."""

    def __init__(self, podman: Podman, folder: Path, data: str) -> None:
        self.podman, self.folder, self.data = podman, folder, data
        self.run = folder / "run"
        (folder / "small.yaml").write_text(
            "base: llama3_8b\nnum_layers: 2\nhidden_size: 32\nnum_attention_heads: 2\nnum_query_groups: 2\n"
            "ffn_hidden_size: 64\nseq_length: 64\n"
        )

    def pretrain(self, *words: str, image: str = IMAGE) -> list[str]:
        """Return the words of a training in podman."""
        tokenizer = str(ROOT / "examples" / "tokenizer")
        return [
            "pretrain", "-M", "small.yaml", "--hf-model-id", tokenizer, "--dataset-dir", self.data,
            "--executor", "podman", "-I", image, "-gbs", "4", "--precision", "fp32", "--limit-val-batches", "0",
            "--no-async-save", "--output-dir", str(self.run), *words,
        ]  # fmt: skip

    def start(self, words: list[str], **variables: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, as a terminal does."""
        with open(self.folder / "said", "w") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "nemolaunch", *words],
                cwd=self.folder,
                env={**os.environ, **self.podman.environment, **variables},
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as if not below `nohup`
            )

    def finish(self, words: list[str], **variables: str) -> tuple[int, str]:
        """Run a command to its end. Return exit code and output."""
        code = self.start(words, **variables).wait(1800)
        return code, (self.folder / "said").read_text()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the metrics that have a loss."""
        path = self.run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if "loss" in row]


def wait_for(condition: Callable[[], object], timeout_s: float = 900) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.1)
