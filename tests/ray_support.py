"""A real Ray cluster on this machine, whose workers and nodes can be killed."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from nemolaunch.tokenization.units.on_ray import QUIET

FILES = (
    "data_text_document.bin",
    "data_text_document.idx",
    "data_validation_text_document.bin",
    "data_validation_text_document.idx",
    "data_rejects.jsonl",
)
DEADLINE_S = 120


class RayOfTests:
    """A head without cores, and nodes with one core each: each is a raylet, a process of its own."""

    def __init__(self, num_nodes: int) -> None:
        os.environ.update(QUIET)
        os.environ.update(RAY_raylet_start_wait_time_s="300")  # on a busy machine 30 are too few
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True, head_node_args={**self.node(0), "include_dashboard": False}
        )
        self.nodes = [self.cluster.add_node(**self.node(1)) for _ in range(num_nodes)]
        self.lost: list[Any] = []
        self.address = str(self.cluster.address)

    @staticmethod
    def node(num_cpus: int) -> dict[str, Any]:
        return {"num_cpus": num_cpus, "object_store_memory": 80 << 20}

    def workers(self) -> list[psutil.Process]:
        """Return the workers that do a unit now."""
        found = []
        for node in self.nodes:
            for raylet in node.all_processes.get("raylet", []):
                with contextlib.suppress(psutil.Error):
                    found += psutil.Process(raylet.process.pid).children(recursive=True)
        return [process for process in found if _title(process).startswith("ray::_do")]

    def kill_worker(self, chance: random.Random) -> bool:
        """Kill a worker that does a unit. Return whether there was one."""
        workers = self.workers()
        if not workers:
            return False
        with contextlib.suppress(psutil.Error):
            chance.choice(workers).kill()
            return True
        return False

    def kill_node(self, chance: random.Random) -> bool:
        """Kill a raylet, which takes its workers with it."""
        node = self.nodes.pop(chance.randrange(len(self.nodes)))
        for raylet in node.all_processes["raylet"]:
            raylet.process.kill()
        self.lost.append(node)
        return True

    def replace_lost(self) -> None:
        """Start a node for each that was killed; only in the main thread."""
        while self.lost:
            self.cluster.remove_node(self.lost.pop(), allow_graceful=False)
            self.nodes.append(self.cluster.add_node(**self.node(1)))

    def close(self) -> None:
        self.cluster.shutdown()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def write_mixture(folder: Path, num_documents: int = 2000) -> Path:
    """Write a file that is divided, a parquet file, a compressed file, small files, texts, and some bad records."""
    chance = random.Random(5)

    def lines(count: int) -> list[str]:
        made = [json.dumps({"text": "some words 中文 " * chance.randint(0, 100)}) for _ in range(count)]
        made[count // 3] = made[-2] = "bad"
        return made

    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("\n".join(lines(num_documents)))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines(num_documents // 8)).encode()))
    texts = [None if i % 400 == 7 else "a row " * chance.randint(0, 200) for i in range(num_documents)]
    pq.write_table(pa.table({"text": texts}), folder / "c.parquet", row_group_size=100)
    for i in range(9):
        (folder / f"d{i}.jsonl").write_text("\n".join(lines(5)) + "\n")
    for i in range(3):
        (folder / f"e{i}.txt").write_text(f"text {i} " * 50)
    return folder


def words_of(tokenizer: Path, source: Path, out: Path) -> list[str]:
    """Return the arguments of a run that uses all there is: files of all kinds, bad records, validation data."""
    inputs = [str(source), str(source / "*.txt")]
    words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "data", "--output-dir", str(out)]
    words += ["--engine", "hf", "--on-error", "skip", "--validation-share", "0.2", "--piece-bytes", "20000"]
    return [*words, "--input-dir", *inputs]


def on_ray(address: str, unit_bytes: int = 60_000) -> list[str]:
    return ["--executor", "ray", "--ray-address", address, "--unit-bytes", str(unit_bytes)]


def made_by(out: Path) -> dict[str, bytes]:
    """Return the content of all files of a result."""
    return {name: (out / "preprocessed" / name).read_bytes() for name in FILES}


def left_behind(out: Path) -> list[str]:
    """Return what is neither a result nor its manifest."""
    return [p.name for p in (out / "preprocessed").iterdir() if not p.name.startswith("data_")]


def driver(words: list[str]) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    command = [sys.executable, "-m", "nemolaunch.cli.commands.tokenize", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def num_done(out: Path) -> int:
    """Return how many units have a result that is not joined yet, or were joined."""
    folder = out / "preprocessed" / "data.unfinished"
    waiting = len([p for p in folder.glob("units-*/*") if not p.name.startswith(".")])
    with contextlib.suppress(OSError, ValueError):
        return waiting + int(json.loads((folder / "progress.json").read_text())["pieces"])
    return waiting


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread during the block, and wait for its end. An error in it is raised."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(action)
        yield
        done.result()


def once(
    condition: Callable[[], bool], action: Callable[[], bool], process: subprocess.Popen[str] | None = None
) -> None:
    """Wait for a condition while a process runs, then try an action until it says that it has been done."""
    until = time.monotonic() + DEADLINE_S
    while not (condition() and action()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.01)
