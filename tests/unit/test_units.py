"""Units of work: together they are the input, each part of it once, in the order of the output."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemolaunch.tokenization.pieces import WHOLE
from nemolaunch.tokenization.request import TokenizeRequest
from nemolaunch.tokenization.sources import InputFile
from nemolaunch.tokenization.tokenizer import TokenizerSpec
from nemolaunch.tokenization.units.tasks import Task, do_task, undone, unit_bytes, write_tasks
from nemolaunch.tokenization.units.unit import Unit, divide
from nemolaunch.tokenization.units.work import FilesDiffer, UnitWork

SPEC = TokenizerSpec(
    name="x", files={}, digest="x", backend="{}", split_special=False, vocab_size=9, max_id=8, eod_token="e", eod_id=0
)  # fmt: skip
SIZES = st.lists(st.tuples(st.sampled_from(["jsonl", "gzip", "text"]), st.integers(0, 5000)), max_size=30)


def request(sources: list[InputFile], folder: Path = Path("/out")) -> TokenizeRequest:
    columns = tuple((f"column {i}",) for i in range(len(sources)))
    return TokenizeRequest(
        sources=sources, spec=SPEC, folder=folder, name="d", keys=("text",), columns=columns
    )


def covered(units: list[Unit], sources: list[InputFile]) -> list[tuple[int, int, int]]:
    """What the units tokenise: place, start and end, in order, with neighbouring ranges joined."""
    found: list[tuple[int, int, int]] = []
    for unit in units:
        for place, (start, stop) in zip(unit.places, unit.ranges, strict=True):
            end = sources[place].size if stop is None else stop
            if unit.only_hash:
                continue
            if found and found[-1][0] == place:
                assert found[-1][2] == start
                found[-1] = (place, found[-1][1], end)
            else:
                found.append((place, start, end))
    return found


@given(SIZES, st.integers(1, 3000))
@settings(deadline=None)
def test_all_input_is_in_one_unit_in_order(given_: list[tuple[str, int]], size: int) -> None:
    sources = [InputFile(f"/in/{i}", kind, size, i) for i, (kind, size) in enumerate(given_)]
    units = divide(request(sources), size)
    assert [unit.number for unit in units] == list(range(len(units)))
    places = [p for p, s in enumerate(sources) if s.kind != "text"]
    places += [p for p, s in enumerate(sources) if s.kind == "text"]
    assert covered(units, sources) == [(p, 0, sources[p].size) for p in places]
    assert sum(unit.size for unit in units) == sum(source.size for source in sources)
    for unit in units:
        assert list(unit.columns) == [(f"column {p}",) for p in unit.places]
        if unit.is_part:
            assert unit.size <= size
    whole = [p for unit in units if not unit.is_part for p in unit.places]
    assert sorted(whole) == sorted(places), (
        "each file is hashed once: where it is whole, or in a unit of its own"
    )


def test_parquet_is_divided_by_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(700)]}), path, row_group_size=100)
    source = InputFile(str(path), "parquet", path.stat().st_size, path.stat().st_mtime_ns)
    *parts, hashed = divide(request([source]), source.size // 3)
    assert [unit.ranges[0] for unit in parts] == [(0, 1), (1, 3), (3, 5), (5, 7)]
    assert sum(unit.size for unit in parts) == source.size
    assert hashed.only_hash
    path.write_bytes(b"no parquet file" * 100)
    assert [unit.ranges for unit in divide(request([source]), 100)] == [(WHOLE,)]


@pytest.mark.parametrize(("total", "nodes", "expected"), [(10**6, 8, 4 << 20), (10**13, 8, 156_250_000_000)])
def test_units_of_whole_nodes(total: int, nodes: int, expected: int) -> None:
    assert unit_bytes(total, nodes) == expected


def test_tasks_survive_the_file_they_are_written_to(tmp_path: Path) -> None:
    """A task that is read is the one that was written; a machine that does not see its files says so."""
    source = InputFile(str(tmp_path / "gone.jsonl"), "jsonl", 100, 5)
    asked = request([source], tmp_path)
    asked.work_folder.mkdir()
    (asked.work_folder / "units").mkdir()
    work = UnitWork.of(asked, asked.work_folder / "units", 1000)
    assert write_tasks(work, undone(work, divide(asked, 60))) == 3
    seen: list[Task] = []

    def choose(task: Task) -> str:
        seen.append(task)
        return "hf"

    with pytest.raises(FilesDiffer, match=r"cannot read .*gone\.jsonl .*all machines need the same paths"):
        do_task(asked.work_folder, 1, 1, choose, lambda *_: None, print)
    assert seen == [Task(work, (divide(asked, 60)[1],))]
