"""The audit finds every row that was fed twice or skipped, and no problem in runs that were only killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_support import encode, setup, texts_of, write

from nemolaunch.run.folder import RunDir
from nemolaunch.stream import ledger
from nemolaunch.stream.audit import Audit, audit
from nemolaunch.stream.inventory import count_rows
from nemolaunch.stream.reader import Reader, StreamSetup
from nemolaunch.stream.state import ReaderState, SourceState

READERS = 4


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    for number, ending in enumerate(("parquet", "jsonl", "jsonl.zst")):
        texts: list[str | None] = [*texts_of(f"b{number}-", 50 + 31 * number)]
        texts[number] = None
        write(folder / "big" / f"{number}.{ending}", texts)
    write(folder / "small" / "only.parquet", texts_of("s", 40))
    return f"{folder}/big:0.7,{folder}/small:0.3"


class Run:
    """A run without a trainer: ranks take samples, and states are kept as in checkpoints."""

    def __init__(self, folder: Path, of: StreamSetup) -> None:
        self.dir = RunDir(folder)
        self.of = of
        self.states: dict[int, list[ReaderState]] = {0: [self._fresh() for _ in range(READERS)]}
        of.manifest.save(self.dir.stream_manifest(of.manifest.digest))

    def _fresh(self) -> ReaderState:
        return ReaderState((SourceState(),) * len(self.of.mix.shares))

    def session(self, start: int, steps: int, ranks: int, resume: str = "exact", lost: int = 0) -> int:
        """Resume from the checkpoint of a step with `ranks` ranks; a kill loses the last `lost` steps of the ledger.

        A step takes one sample of each reader. Returns the step it reached.
        """
        number = len(ledger.sessions(self.dir)) + 1
        names = tuple(listed.source.name for listed in self.of.manifest.sources)
        ledger.begin_session(
            self.dir,
            ledger.Session(
                number=number, time=time.time(), resume=resume if number > 1 else "start", seed=self.of.rules.seed,
                samples=start * READERS, digest=self.of.manifest.digest, tokenizer="t", readers=READERS,
                data_parallel_size=ranks, workers=1, seq_length=self.of.seq_length, names=names,
                shares=self.of.mix.shares, unit="rows", windows=self.of.windows, held_out=0.0, shuffle_files=True,
            ),
        )  # fmt: skip
        files = [ledger.FedFile(ledger.fed_path(self.dir, number, rank)) for rank in range(ranks)]
        made = [iter(Reader(self.of, r, encode, self.states[start][r])) for r in range(READERS)]
        for step in range(start + 1, start + steps + 1):
            samples = [next(reader) for reader in made]
            self.states[step] = [ReaderState.unpack(s.state.tolist()) for s in samples]
            if step <= start + steps - lost:
                for reader, sample in enumerate(samples):
                    files[reader % ranks].add(sample.number, sample.fed)
        for file in files:
            file.sync() if lost else file.close()
        return start + steps

    def audit(self) -> Audit:
        return audit(self.dir, lambda source, files: [count_rows(source, file) for file in files])


@given(
    kills=st.lists(st.tuples(st.integers(1, 60), st.sampled_from([1, 2, 4]), st.integers(0, 20)), max_size=4),
    window=st.sampled_from([1, 7, 1000]),
)
@settings(max_examples=15, deadline=None)
def test_a_run_with_kills_and_other_numbers_of_ranks_feeds_each_row_once(
    words: str, tmp_path_factory: pytest.TempPathFactory, kills: Sequence[tuple[int, int, int]], window: int
) -> None:
    run = Run(tmp_path_factory.mktemp("run"), setup(words, readers=READERS, window=window))
    at = run.session(0, 5, ranks=2)
    undone = 0
    for steps, ranks, back in kills:
        back = min(back, at)
        undone += back * READERS
        at = run.session(at - back, steps, ranks)
    found = run.audit()
    assert found.problems == []
    assert found.samples == at * READERS
    assert found.tokens == at * READERS * 32
    for source in found.sources:
        assert all(epoch.repeated == epoch.passed_over == 0 for epoch in source.epochs)
        assert all(e.once + e.to_come == source.rows - source.without_text for e in source.epochs)
    assert found.sources[0].by_rows == pytest.approx(
        0.7, abs=READERS / max(1, sum(s.fed for s in found.sources))
    )


def test_it_counts_each_row(words: str, tmp_path: Path) -> None:
    run = Run(tmp_path, setup(words, readers=READERS))
    run.session(0, 150, ranks=1)
    big, small = run.audit().sources
    assert big.rows == 50 + 81 + 112
    assert big.without_text == 3
    assert sum(times * count for times, count in small.histogram().items()) == small.fed
    assert sum(small.histogram().values()) == small.rows == 40
    assert min(small.histogram()) >= 1


def test_what_is_fed_after_the_checkpoint_does_not_count(words: str, tmp_path: Path) -> None:
    run = Run(tmp_path, setup(words, readers=READERS))
    run.session(0, 30, ranks=2)
    run.session(10, 20, ranks=4, lost=5)
    found = run.audit()
    assert found.problems == []
    assert found.undone == 20 * READERS
    assert found.samples == 25 * READERS


def test_rows_fed_again_are_found(words: str, tmp_path: Path) -> None:
    """As with a loader that starts from an earlier position than the trainer."""
    run = Run(tmp_path, setup(words, readers=READERS))
    run.session(0, 30, ranks=2)
    behind = [replace(state, samples=30) for state in run.states[20]]
    run.states[30] = behind
    run.session(30, 10, ranks=2)
    problems = " ".join(run.audit().problems)
    assert "was fed 2 times in epoch 1" in problems
    assert "does not continue where a row was cut" in problems


def test_rows_of_a_lost_shuffle_buffer_are_found(tmp_path: Path) -> None:
    """As with a loader that starts after what its buffer contained."""
    write(tmp_path / "a.parquet", [f"{i:05}" for i in range(2500)])
    run = Run(tmp_path, setup(str(tmp_path), readers=READERS, window=20))
    run.session(0, 30, ranks=2)

    def beyond(source: SourceState) -> SourceState:
        at = source.position
        return replace(source, position=at._replace(piece=at.piece + 2, group=0, row=0, window=0, drawn=0))

    run.states[30] = [
        replace(state, sources=tuple(map(beyond, state.sources)), row=0, offset=0) for state in run.states[30]
    ]
    run.session(30, 90, ranks=2)
    found = run.audit()
    assert sum(e.passed_over for s in found.sources for e in s.epochs) > 5
    assert any("was skipped in epoch" in problem for problem in found.problems)


def test_a_lost_sample_is_found(words: str, tmp_path: Path) -> None:
    run = Run(tmp_path, setup(words, readers=READERS))
    run.session(0, 30, ranks=2, lost=3)
    run.session(30, 10, ranks=1)
    assert any("sample 120 follows sample 104" in problem for problem in run.audit().problems)


def test_an_incomplete_file_is_read_up_to_its_last_complete_batch(words: str, tmp_path: Path) -> None:
    run = Run(tmp_path, setup(words, readers=READERS))
    run.session(0, 10, ranks=1, lost=1)
    path = ledger.fed_path(run.dir, 1, 0)
    data = path.read_bytes()
    for end in (0, 10, len(data) - 1, len(data) // 2):
        path.write_bytes(data[:end])
        assert run.audit().samples in (0, 36)
    path.write_bytes(data)
    assert run.audit().samples == 36
