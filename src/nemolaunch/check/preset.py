"""Presets: whether GPU and model are those that the preset was measured on."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch import catalogue
from nemolaunch.check.support import flag, warning
from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that the preset's GPU and model are the job's."""
    word = resolved.job.launch.preset
    if word is None:
        return
    try:
        preset = catalogue.preset(word)
    except UsageError:  # a saved plan whose preset file is gone: its values are in the plan
        return
    named = resolved.job.launch.gpu
    here = (named,) if named else resolved.facts.host.gpus
    others = sorted({name for name in here if preset.gpu and not _same(name, preset.gpu)})
    if others:
        yield warning(
            "preset-gpu",
            f"{flag('preset')} {preset.name} was measured on {preset.gpu}, but this job is for {', '.join(others)}; "
            "it may be slower or not fit",
        )
    if preset.model and preset.model not in (resolved.job.model.model_name, resolved.model.recipe.name):
        yield warning(
            "preset-model",
            f"{flag('preset')} {preset.name} was measured with {preset.model}, but this job trains "
            f"{resolved.model.name}; it may be slower or not fit",
        )


def _same(name: str, other: str) -> bool:
    try:
        return catalogue.gpu(name).name == catalogue.gpu(other).name
    except UsageError:
        return name == other
