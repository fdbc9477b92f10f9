"""A preset's flags are good for what they were measured on."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch import catalogue
from nemolaunch.check.support import flag, warning
from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """The preset's GPU and model are the job's."""
    word = resolved.job.launch.preset
    if word is None:
        return
    try:
        preset = catalogue.preset(word)
    except UsageError:  # a saved plan whose preset's file is gone: its values are in the plan
        return
    named = resolved.job.launch.gpu
    here = (named,) if named else resolved.facts.host.gpus
    others = sorted({name for name in here if preset.gpu and not _same(name, preset.gpu)})
    if others:
        yield warning(
            "preset-gpu",
            f"{flag('preset')} {preset.name} was measured on {preset.gpu}, and this is for {', '.join(others)}",
        )
    if preset.model and preset.model not in (resolved.job.model.model_name, resolved.model.recipe.name):
        yield warning(
            "preset-model",
            f"{flag('preset')} {preset.name} was measured with {preset.model}, and this trains {resolved.model.name}",
        )


def _same(name: str, other: str) -> bool:
    try:
        return catalogue.gpu(name).name == catalogue.gpu(other).name
    except UsageError:
        return name == other
