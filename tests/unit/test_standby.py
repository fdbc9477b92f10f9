"""Workers of a run share the tokenizer that was loaded by the process which they are forked from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tokens_support import auto_tokenizer, variant, write_jsonl

from nemolaunch.tokenizer import library

TEXTS = ["some text", "中文 and more", ""]
# A worker may not import the main module, so what it does is in one of its own
WORKER = f"""
import os
from pathlib import Path
from nemolaunch.system.worker_pool import take_environment
from nemolaunch.tokenization import engines, standby
from nemolaunch.tokenizer import library

def look(answer, environment, folder):
    take_environment(environment)
    loaded = engines.fastokens_tokenizer.cache_info().currsize
    ids = []
    if loaded:
        tokenizer = engines.fastokens_tokenizer(library.cached_backend(Path(folder)))
        ids = [tokenizer.encode(text).ids for text in {TEXTS!r}]
    answer.send({{"loaded": loaded, "ids": ids, "told": standby.TOKENIZER in os.environ}})
"""
PARENT = """
import json, os, sys
from nemolaunch.tokenization import standby
from worker_of_this_test import look

context = standby.start_standby(sys.argv[1])
for _ in range(2):
    mine, theirs = context.Pipe()
    context.Process(target=look, args=(theirs, dict(os.environ), sys.argv[1])).start()
    theirs.close()
    print(json.dumps(mine.recv() | {"told parent": standby.TOKENIZER in os.environ}))
"""


def _workers(tokenizer: Path, folder: Path, cache: Path) -> list[dict[str, object]]:
    """Return what two workers found in a new process."""
    (folder / "worker_of_this_test.py").write_text(WORKER)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(tokenizer)],
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_workers_share_a_known_tokenizer(tmp_path: Path) -> None:
    tokenizer = variant("small", tmp_path / "tokenizer")
    library.frozen(tokenizer, cache=tmp_path / "cache" / "nemolaunch")
    ids = [auto_tokenizer(str(tokenizer))(text).input_ids for text in TEXTS]
    expected = {"loaded": 1, "ids": ids, "told": False, "told parent": False}
    assert _workers(tokenizer, tmp_path, tmp_path / "cache") == [expected, expected]


def test_workers_start_without_one_that_is_not_known(tmp_path: Path) -> None:
    expected = {"loaded": 0, "ids": [], "told": False, "told parent": False}
    tokenizer = variant("small", tmp_path / "tokenizer")
    assert _workers(tokenizer, tmp_path, tmp_path / "cache") == [expected, expected]
    assert _workers(tmp_path / "nowhere", tmp_path, tmp_path / "cache") == [expected, expected]


@pytest.mark.parametrize("wait_s", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("known", [True, False])
def test_ctrl_c_while_workers_start_prints_one_word(known: bool, wait_s: float, tmp_path: Path) -> None:
    """The terminal sends it to all processes of the command, in whatever they are importing."""
    tokenizer = variant("small", tmp_path / "tokenizer")
    if known:
        library.frozen(tokenizer, cache=tmp_path / "cache" / "nemolaunch")
    source = write_jsonl(tmp_path / "in.jsonl", [f"document {i} " * 50 for i in range(50_000)])
    words = ["--hf-tokenizer", str(tokenizer), "--data-prefix", "x", "--input-dir", str(source)]
    words += ["--engine", "hf", "--workers", "2", "--output-dir", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "nemolaunch.cli.main", "tokenize", *words],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not psutil.Process(process.pid).children():
        time.sleep(0.01)
    time.sleep(wait_s)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT)
    assert said.splitlines()[-1] == "interrupted"
    assert "Traceback" not in said
