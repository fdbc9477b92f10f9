"""What a plan gives its processes: variables, mounts, as lines of text."""

from __future__ import annotations

from nemolaunch import batchjob
from nemolaunch.cli.estimate_view import row
from nemolaunch.plan import Plan
from nemolaunch.variables import PRESETS


def launch_lines(plan: Plan) -> list[str]:
    """Each variable with what it comes from, and of a container each mount."""
    values = {**plan.environment, **plan.variables}
    shown = [(f"{name}={value}", _origin(plan, name)) for name, value in values.items()]
    width = max((len(text) for text, _ in shown), default=0)
    lines = [
        row("" if number else "variables", f"{text:<{width}}  {origin}".rstrip())
        for number, (text, origin) in enumerate(shown)
    ]
    if plan.submission is not None and batchjob.image(plan):
        lines += [
            row("" if number else "mounts", mount) for number, mount in enumerate(batchjob.mounts(plan))
        ]
    return lines


def _origin(plan: Plan, name: str) -> str:
    if name in plan.variables:
        return "flag"
    presets = [p for p in plan.values["env_preset"] if p in PRESETS and name in PRESETS[p].values]
    return f"preset {presets[-1]}, unless exported" if presets else "unless exported"
