"""What the measuring processes agree on: pairs of nodes, clocks, and who is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemolaunch.preflight.clocks import ahead_s
from nemolaunch.preflight.meeting import Absent, meet, nodes_of
from nemolaunch.preflight.place import Place
from nemolaunch.preflight.speed import rounds
from nemolaunch.run.folder import RunDir


def test_the_exchange_with_the_shortest_round_trip_counts() -> None:
    # sent at 10.0, answered at 15.1 by the other clock, received at 10.2: 15.1 - 10.1 = 5 s ahead
    assert ahead_s([(0.0, 9.0, 4.0), (10.0, 15.1, 10.2)]) == pytest.approx(5.0)


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 5, 8, 9])
def test_every_node_is_measured_with_both_neighbours(num_nodes: int) -> None:
    found = rounds(num_nodes)
    for pairs in found:
        places = [node for pair in pairs for node in pair]
        assert len(places) == len(set(places))  # no node is in two pairs at a time
    edges = {frozenset(pair) for pairs in found for pair in pairs}
    wanted = {frozenset((i, (i + 1) % num_nodes)) for i in range(num_nodes)} if num_nodes > 1 else set()
    assert edges == wanted


def test_nodes_of_missing_ranks() -> None:
    assert nodes_of([4, 5, 7, 9], 12, {"SLURM_JOB_NODELIST": "n[1-3]"}) == ["n2", "n3"]
    assert nodes_of([1], 2, {}) == []


def test_a_rank_that_does_not_come_is_named(tmp_path: Path) -> None:
    place = Place(rank=0, local_rank=0, world_size=2, node="n1")
    with (
        pytest.raises(Absent, match=r"rank\(s\) 1 did not reach rank 0") as raised,
        meet(RunDir(tmp_path), "7.0", place, timeout_s=1.0),
    ):
        pass
    assert raised.value.ranks == [1]
    assert not list((tmp_path / "preflight").iterdir())  # a later attempt does not find this meeting
