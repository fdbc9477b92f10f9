"""Starts of a run: what may change from one to the next, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_support import encode, texts_of, write

from nemolaunch.errors import NemolaunchError
from nemolaunch.facts.dataset_words import read_stream
from nemolaunch.job import Job
from nemolaunch.run.folder import RunDir
from nemolaunch.stream import session
from nemolaunch.stream.reader import BEGINS, Reader
from nemolaunch.stream.session import StartedSession
from nemolaunch.stream.state import ReaderState, StreamState

VALUES: dict[str, Any] = {
    "text_key": "text", "blend_by": "rows", "stream_readers": 2, "data_resume": "exact", "seed": 5, "num_workers": 1,
    "split": "1,0,0", "shard_shuffle": True, "shuffle_buffer": 20, "bad_data": "skip-rows",
    "stopping_strategy": "fixed-tokens", "seq_length": 64,
}  # fmt: skip


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name in "abc":
        write(tmp_path / "texts" / name / "x.parquet", texts_of(name, 300))
    return tmp_path / "texts"


def start(
    run: Path, words: str, state: StreamState | None = None, samples: int = 0, **values: Any
) -> StartedSession:
    tokenizer = values.pop("tokenizer", "t")
    return session.begin(
        RunDir(run), Job(**{**VALUES, **values}), read_stream((words,)), tokenizer=tokenizer,
        data_parallel_size=1, samples=samples, state=state,
    )  # fmt: skip


def run_on(begun: StartedSession, count: int) -> tuple[StreamState, Any]:
    """Take `count` samples of each reader. Return the state a checkpoint would keep, and all rows that began."""
    states, fed = [], []
    for number, state in enumerate(begun.state.readers):
        made = [s for s, _ in zip(Reader(begun.setup, number, encode, state), range(count), strict=False)]
        states.append(ReaderState.unpack(made[-1].state.tolist()))
        fed += [s.fed for s in made]
    rows = np.concatenate(fed)
    after = replace(begun.state, readers=tuple(states))
    return StreamState.from_values(after.as_values()), rows[rows["flags"] & BEGINS > 0]


def names(rows: Any) -> set[tuple[int, ...]]:
    return {(int(r["source"]), int(r["epoch"]), int(r["file"]), int(r["group"]), int(r["row"])) for r in rows}


def test_weights_change_and_a_source_is_added_without_a_row_twice(texts: Path, tmp_path: Path) -> None:
    first = start(tmp_path / "run", f"{texts}/a:0.9,{texts}/b:0.1")
    state, before = run_on(first, 60)
    second = start(tmp_path / "run", f"{texts}/b:0.5,{texts}/c:0.5", state, samples=120)
    assert second.session.names == ("a", "b", "c")
    assert second.session.shares == (0.0, 0.5, 0.5)
    state, after = run_on(second, 60)
    assert (
        len(names(before)) + len(names(after))
        == len(names(before) | names(after))
        == len(before) + len(after)
    )
    assert set(after["source"][130:].tolist()) == {1, 2}


def test_files_may_move_but_not_change(texts: Path, tmp_path: Path) -> None:
    state, before = run_on(start(tmp_path / "run", str(texts / "a")), 20)
    moved = tmp_path / "moved"
    (texts / "a").rename(moved)
    again = start(tmp_path / "run", str(moved), state, samples=40)
    _, after = run_on(again, 20)
    assert not names(before) & names(after)
    write(moved / "x.parquet", texts_of("other", 300))
    with pytest.raises(NemolaunchError, match="does not have the files that the run was fed from"):
        start(tmp_path / "run", str(texts.parent / "moved" / "x.parquet"), state, samples=40)


def test_what_would_skip_or_repeat_rows_is_refused(texts: Path, tmp_path: Path) -> None:
    state, _ = run_on(start(tmp_path / "run", str(texts)), 5)
    with pytest.raises(NemolaunchError, match="--stream-readers 4: the run was started with 2"):
        start(tmp_path / "run", str(texts), state, samples=10, stream_readers=4)
    with pytest.raises(NemolaunchError, match="another tokenizer"):
        start(tmp_path / "run", str(texts), state, samples=10, tokenizer="other")
    with pytest.raises(NemolaunchError, match="format 9"):
        StreamState.from_values({**state.as_values(), "format": 9})


def test_a_fresh_start_has_another_order_and_continues_the_count(texts: Path, tmp_path: Path) -> None:
    first = start(tmp_path / "run", str(texts), data_resume="fresh")
    state, before = run_on(first, 5)
    second = start(tmp_path / "run", str(texts), state, samples=10, data_resume="fresh", stream_readers=4)
    assert second.session.seed != first.session.seed
    samples = [next(iter(Reader(second.setup, n, encode, s))) for n, s in enumerate(second.state.readers)]
    assert min(s.number for s in samples) >= 10
    again = start(tmp_path / "other", str(texts), data_resume="fresh")
    assert again.session.seed not in (first.session.seed, second.session.seed)
    assert before is not None


def test_files_added_later_are_not_read(texts: Path, tmp_path: Path) -> None:
    state, _ = run_on(start(tmp_path / "run", str(texts / "a")), 5)
    write(texts / "a" / "later.parquet", texts_of("later", 50))
    again = start(tmp_path / "run", str(texts / "a"), state, samples=10)
    assert [Path(f.path).name for f in again.setup.manifest.sources[0].files] == ["x.parquet"]
