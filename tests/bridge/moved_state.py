"""Whether two checkpoints of Megatron-Core hold the same state of a training."""

from __future__ import annotations

from pathlib import Path

from nemolaunch.checkpoint.bridge import state
from nemolaunch.checkpoint.migrate import optimizer as tree
from nemolaunch.checkpoint.storage.dcp import DcpSource


def assert_same_state(ours: Path, theirs: Path) -> None:
    """All tensors, and the optimizer's groups but for their rate, which the plan sets in each step."""
    a, b = DcpSource(ours), DcpSource(theirs)
    assert a.tensors == b.tensors
    assert [name for name in a.tensors if not a.read(name).equal(b.read(name))] == []
    groups = [
        [{**group, "lr": 0.0} for group in tree.groups(tree.plain(state.common(stored)["optimizer"]))]
        for stored in (a, b)
    ]
    assert groups[0] == groups[1]
    assert state.common(a)["iteration"] == state.common(b)["iteration"]
