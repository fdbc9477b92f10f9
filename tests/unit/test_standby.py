"""Workers of a run share the tokenizer that was loaded by the process which they are forked from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tokens_support import auto_tokenizer, variant

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
