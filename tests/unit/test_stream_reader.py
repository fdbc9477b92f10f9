"""What a stream guarantees: every row once per epoch, and the same samples again from any state."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_support import samples, setup, texts_of, write

from nemolaunch.errors import NemolaunchError
from nemolaunch.stream.reader import BEGINS, DAMAGED, ENDS, REJECTED, Sample
from nemolaunch.stream.state import Mix, ReaderState


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of very different sizes, with all kinds of files."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, ending in enumerate(("parquet", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")):
        write(folder / "big" / f"{number}.{ending}", texts_of(f"b{number}-", 60 + 31 * number))
    write(folder / "small" / "only.parquet", texts_of("s", 40))
    return folder


def begun(made: list[Sample]) -> Counter[tuple[int, int, int, int, int]]:
    """Return how often each row began: (source, epoch, file, group, row)."""
    found: Counter[tuple[int, int, int, int, int]] = Counter()
    for sample in made:
        for row in sample.fed[sample.fed["flags"] & BEGINS > 0]:
            found[tuple(int(row[k]) for k in ("source", "epoch", "file", "group", "row"))] += 1  # type: ignore[index]
    return found


def same(a: list[Sample], b: list[Sample]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x.tokens, y.tokens)
        and np.array_equal(x.fed, y.fed)
        and np.array_equal(x.state, y.state)
        and x.number == y.number
        for x, y in zip(a, b, strict=True)
    )


def test_every_row_is_fed_once_an_epoch(corpus: Path) -> None:
    of = setup(str(corpus / "big"), readers=3)
    found: Counter[tuple[int, int, int, int, int]] = Counter()
    for reader in range(3):
        found += begun(samples(of, reader, 900))
    assert set(found.values()) == {1}
    for epoch in (0, 1):
        rows = [key for key in found if key[1] == epoch]
        assert len(rows) == sum(60 + 31 * n for n in range(5))
    assert [k[2:] for k in found if k[1] == 0] != [k[2:] for k in found if k[1] == 1]


def test_samples_are_the_rows_in_the_order_in_which_they_are_named(corpus: Path) -> None:
    of = setup(f"{corpus}/big:0.8,{corpus}/small:0.2")
    made = samples(of, 0, 200)
    text = "".join(map(chr, np.concatenate([s.tokens[:-1] for s in made])))
    assert all(s.tokens[-1] == t.tokens[0] for s, t in itertools.pairwise(made))
    rows = np.concatenate([s.fed for s in made])
    at = 0
    whole = 0
    for row in rows:
        piece = text[at : at + int(row["tokens"])]
        at += len(piece)
        if row["flags"] == BEGINS | ENDS:
            name = "s" if row["source"] == 1 else f"b{row['file']}-"
            assert piece.startswith(name)
            assert piece.endswith("\0")
            whole += 1
    assert at == len(text)
    assert whole > 20


@given(
    stop=st.integers(0, 60),
    window=st.sampled_from([1, 2, 10, 1000]),
    unit=st.sampled_from(["rows", "tokens"]),
    readers=st.sampled_from([1, 2, 5]),
)
@settings(max_examples=25, deadline=None)
def test_a_reader_resumes_from_any_state(
    corpus: Path, stop: int, window: int, unit: str, readers: int
) -> None:
    of = setup(f"{corpus}/big:0.7,{corpus}/small:0.3", readers=readers, window=window, unit=unit)
    whole = samples(of, readers - 1, stop + 40)
    state = ReaderState.unpack(whole[stop].state.tolist())
    assert same(samples(of, readers - 1, 39, state), whole[stop + 1 : stop + 40])


def test_a_state_is_small(corpus: Path) -> None:
    of = setup(f"{corpus}/big:0.7,{corpus}/small:0.3")
    assert samples(of, 0, 1)[0].state.nbytes < 300


@pytest.mark.parametrize("unit", ["rows", "tokens"])
def test_the_mixture_is_what_was_asked_for(corpus: Path, unit: str) -> None:
    """Exact to one row, or to about the length of a row, in every reader."""
    of = setup(f"{corpus}/big:0.9,{corpus}/small:0.1", unit=unit)
    for reader in range(4):
        fed = np.concatenate([s.fed for s in samples(of, reader, 400)])
        fed = fed[fed["flags"] & REJECTED == 0]
        counted = (fed["flags"] & BEGINS > 0) if unit == "rows" else fed["tokens"]
        longest = 1 if unit == "rows" else max(fed["tokens"].max(), 1000)
        rare = counted[fed["source"] == 1].sum()
        assert abs(float(rare) - 0.1 * counted.sum()) <= 2 * longest


def test_rows_of_a_rare_source_do_not_come_at_once(corpus: Path) -> None:
    of = setup(f"{corpus}/big:0.95,{corpus}/small:0.05", readers=8)
    firsts = []
    for reader in range(8):
        fed = np.concatenate([s.fed for s in samples(of, reader, 60)])
        begins = fed[fed["flags"] & BEGINS > 0]
        firsts.append(int(np.argmax(begins["source"] == 1)))
    assert len(set(firsts)) > 5
    assert max(firsts) <= 20


def test_rows_are_shuffled_within_windows_only(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [f"{i:04}" for i in range(400)], group=50)
    for window, reach in ((1, 0), (20, 20), (400, 400)):
        of = setup(str(tmp_path), readers=1, window=window, seq_length=1500, shuffle_files=False)
        (sample,) = samples(of, 0, 1)
        order = [int(bytes(sample.tokens[i : i + 4].astype(np.uint8))) for i in range(0, 1500, 5)]
        far = max(abs(place - row) for place, row in enumerate(order))
        assert far <= reach
        assert far >= reach * 0.7


def test_without_repetition_a_reader_ends_with_the_source_that_ends_first(corpus: Path) -> None:
    of = setup(f"{corpus}/big:0.5,{corpus}/small:0.5", once=True, readers=2)
    made = [s for reader in range(2) for s in samples(of, reader, 10_000)]
    found = begun(made)
    assert set(found.values()) == {1}
    assert {key[1] for key in found} == {0}
    assert 30 < sum(1 for key in found if key[0] == 1) <= 40


def test_a_reader_says_when_it_has_seen_everything_once(corpus: Path) -> None:
    of = setup(f"{corpus}/big:0.5,{corpus}/small:0.5", readers=1)
    made = samples(of, 0, 3000)
    first = next(i for i, s in enumerate(made) if s.once)
    found = begun(made[: first + 1])
    rows = {(s, f, g, r) for s, _, f, g, r in found}
    assert len(rows) == 40 + sum(60 + 31 * n for n in range(5))
    assert all(s.once for s in made[first:])


def test_held_out_rows_are_the_same_for_all_and_no_others_are_lost(corpus: Path) -> None:
    for share in (0.02, 0.4):
        parts: dict[bool, list[set[tuple[int, ...]]]] = {}
        for validation in (False, True):
            for readers in (1, 3):
                of = setup(
                    str(corpus / "big"), share=share, readers=readers, validation=validation, seed=readers
                )
                found = Counter[tuple[int, ...]]()
                for reader in range(readers):
                    made = samples(of, reader, 1200)
                    found += Counter(k for k in begun(made) if k[1] == 0)
                assert set(found.values()) == {1}
                parts.setdefault(validation, []).append({k[2:] for k in found})
        assert parts[True][0] == parts[True][1]
        assert parts[False][0] == parts[False][1]
        assert not parts[True][0] & parts[False][0]
        assert len(parts[True][0] | parts[False][0]) == sum(60 + 31 * n for n in range(5))
        assert parts[True][0]


def test_rows_without_text_are_skipped_and_recorded(tmp_path: Path) -> None:
    texts = [f"t{i}" for i in range(30)]
    bad: list[str | None] = list(texts)
    bad[3], bad[17], bad[29] = None, "", None
    write(tmp_path / "a.parquet", bad)
    of = setup(str(tmp_path), readers=2, window=4, seq_length=8)
    for stop in (2, 5, 9):
        fed = []
        for reader in range(2):
            whole = samples(of, reader, 14)
            state = ReaderState.unpack(whole[stop].state.tolist())
            assert same(samples(of, reader, 13 - stop, state), whole[stop + 1 :])
            fed.append(np.concatenate([s.fed for s in whole]))
        rows = np.concatenate(fed)
        first = rows[rows["epoch"] == 0]
        rejected = sorted(7 * int(r["group"]) + int(r["row"]) for r in first[first["flags"] == REJECTED])
        assert rejected == [3, 17, 29]


def test_a_wrong_key_is_reported_before_much_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ["x"] * 3000, column="content")
    with pytest.raises(NemolaunchError, match="no key 'text'; it has 'content', like all 1000 rows read"):
        samples(setup(str(tmp_path), readers=1), 0, 1)
    write(tmp_path / "b" / "a.parquet", ["x"], column="content")
    with pytest.raises(NemolaunchError, match=r"a.parquet has no column 'text'; it has id, content"):
        samples(setup(str(tmp_path / "b"), readers=1), 0, 1)


def test_a_source_without_any_text_is_not_skipped_for_the_others(tmp_path: Path) -> None:
    write(tmp_path / "good" / "a.jsonl", texts_of("g", 100))
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.jsonl").write_text("no json\n" * 5)
    of = setup(f"{tmp_path}/good:0.5,{tmp_path}/junk:0.5", readers=1)
    with pytest.raises(
        NemolaunchError, match=r"source junk: .* invalid JSON.* like all 320 rows read from it"
    ):
        samples(of, 0, 5)


def test_damage_stops_the_run_or_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", texts_of("a", 40), group=10)
    write(tmp_path / "b.parquet", texts_of("b", 40), group=10)
    data = bytearray(path.read_bytes())
    import pyarrow.parquet as pq

    column = pq.ParquetFile(path).metadata.row_group(2).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(bytes(data))
    with pytest.raises(NemolaunchError, match=r"a.parquet, row group 2, is damaged: .*--bad-data skip"):
        samples(setup(str(tmp_path), readers=1), 0, 500)
    made = samples(setup(str(tmp_path), readers=1, skip_damaged=True), 0, 300)
    found = begun(made)
    assert len({k[2:] for k in found}) == 70
    rows = np.concatenate([s.fed for s in made])
    assert {(int(r["file"]), int(r["group"])) for r in rows[rows["flags"] & DAMAGED > 0]} == {(0, 2)}


def test_a_missing_or_changed_file_is_never_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", texts_of("a", 40))
    of = setup(str(tmp_path), readers=1, skip_damaged=True)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(
        NemolaunchError, match=r"a.parquet has [\d,]+ bytes, not the [\d,]+ it had when the run"
    ):
        samples(of, 0, 5)
    path.unlink()
    with pytest.raises(NemolaunchError, match="No such file or directory; it had"):
        samples(of, 0, 5)


def test_a_source_of_fewer_rows_than_readers_is_still_read(tmp_path: Path) -> None:
    write(tmp_path / "tiny" / "a.parquet", texts_of("t", 3))
    write(tmp_path / "big" / "a.parquet", texts_of("b", 300))
    of = setup(f"{tmp_path}/tiny:0.2,{tmp_path}/big:0.8", readers=8)
    rows = Counter[int]()
    for reader in range(8):
        for sample in samples(of, reader, 60):
            rows.update(sample.fed[sample.fed["flags"] & BEGINS > 0]["source"].tolist())
    assert rows[0] / rows.total() == pytest.approx(0.2, abs=0.02)


def test_new_weights_count_from_where_they_start_even_over_kills(corpus: Path) -> None:
    """The current block of rows is finished with the old weights, even if there is a kill in it."""
    words = f"{corpus}/big:0.9,{corpus}/small:0.1"
    of = setup(words, readers=1)
    made = samples(of, 0, 120)
    new = replace(of, mixes=(*of.mixes, Mix((0.3, 0.7), "rows")))
    state = ReaderState.unpack(made[-1].state.tolist())
    whole = samples(new, 0, 600, state)
    fed = np.concatenate([s.fed for s in whole[300:]])
    begins = fed[fed["flags"] & BEGINS > 0]
    assert begins["source"].mean() == pytest.approx(0.7, abs=0.02)
    for stop in (0, 1, 5, 50):
        state = ReaderState.unpack(whole[stop].state.tolist())
        assert same(samples(new, 0, 10, state), whole[stop + 1 : stop + 11])
    found = begun(made + whole)
    assert set(found.values()) == {1}


def test_a_dropped_source_ends_with_its_block(corpus: Path) -> None:
    of = setup(f"{corpus}/big:0.5,{corpus}/small:0.5", readers=1)
    made = samples(of, 0, 50)
    new = replace(of, mixes=(*of.mixes, Mix((1.0, 0.0), "rows")))
    after = samples(new, 0, 500, ReaderState.unpack(made[-1].state.tolist()))
    fed = np.concatenate([s.fed for s in after])
    begins = fed[fed["flags"] & BEGINS > 0]["source"]
    assert 0 < begins.sum() <= 64
    assert not begins[64:].any()


def test_shares_of_tokens_hold_from_the_first_rows_on(tmp_path: Path) -> None:
    """Even if one source's rows are a hundred times as long as another's."""
    write(tmp_path / "long" / "a.parquet", ["l" * 2000] * 200)
    write(tmp_path / "short" / "a.parquet", ["s" * 20] * 20_000, group=5000)
    of = setup(f"{tmp_path}/long:0.5,{tmp_path}/short:0.5", readers=1, unit="tokens", seq_length=1000)
    made = samples(of, 0, 60)
    for end in (20, 40, 60):
        fed = np.concatenate([s.fed for s in made[:end]])
        tokens = [int(fed["tokens"][fed["source"] == source].sum()) for source in (0, 1)]
        assert abs(tokens[0] - tokens[1]) <= 4500
