"""The environment variables and mounts of a plan as lines of text."""

from __future__ import annotations

from nemolaunch.cli.views.estimate import row
from nemolaunch.containers.mounts import mounts_of
from nemolaunch.job.env_presets import PRESETS
from nemolaunch.planning import Plan


def launch_lines(plan: Plan) -> list[str]:
    """Return a line for each variable with its origin, and with a container for each mount."""
    values = {**plan.environment, **plan.variables}
    shown = [(f"{name}={value}", _origin(plan, name)) for name, value in values.items()]
    width = max((len(text) for text, _ in shown), default=0)
    lines = [
        row("" if number else "variables", f"{text:<{width}}  {origin}".rstrip())
        for number, (text, origin) in enumerate(shown)
    ]
    if plan.job.launch.runtime is not None:
        lines += [row("" if number else "mounts", mount) for number, mount in enumerate(mounts_of(plan))]
    return lines


def _origin(plan: Plan, name: str) -> str:
    if name in plan.variables:
        return "flag"
    presets = [p for p in plan.job.launch.env_preset if p in PRESETS and name in PRESETS[p].values]
    return f"preset {presets[-1]}, unless exported" if presets else "unless exported"
