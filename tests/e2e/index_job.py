"""What the fork server's rank runs in the tests of the index: building it, as `nemolaunch prepare-index` does."""

from __future__ import annotations

from pathlib import Path


def build(plan_file: str) -> list[str]:
    """Build the index of a saved plan. Returns the names of the files in its folder."""
    from nemolaunch.nemo2.build_index import build_index
    from nemolaunch.planning import Plan

    plan = Plan.load(Path(plan_file))
    build_index(plan)
    return sorted(path.name for path in Path(str(plan.index_folder)).iterdir())
