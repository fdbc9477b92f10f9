"""What the ranks of the tests of Megatron-Bridge's releases run."""

from __future__ import annotations

from typing import Any


def train(plan_file: str, kill_after: int | None = None) -> dict[str, Any]:
    """Train a plan. Returns what `bridge.train_bridge_plan` records, and the releases."""
    from importlib.metadata import version

    from bridge import train_bridge_plan

    found = train_bridge_plan.train(plan_file, kill_after=kill_after)
    return {**found, "releases": [version(name) for name in ("megatron-bridge", "megatron-core")]}
