"""Effects of `--set` on the model that is planned."""

from __future__ import annotations

import contextlib
import dataclasses

from nemolaunch.catalogue import ModelSpec, bridge_settings
from nemolaunch.catalogue.recipe_fields import converted, recipe_fields
from nemolaunch.job import Job
from nemolaunch.job.settings import parsed

PREFIX, BRIDGE_PREFIX = "model.config.", "model."
# Fields of the architecture that say how something is computed, not what; the rest belongs into a YAML file
SETTABLE = (
    "attention_dropout", "hidden_dropout", "apply_rope_fusion", "bias_activation_fusion", "moe_grouped_gemm",
    "moe_token_dispatcher_type",
)  # fmt: skip


def as_set(model: ModelSpec, job: Job, *, bridge: bool = False) -> ModelSpec:
    """Return the model with the settings of its architecture, from which checks and estimates are computed.

    Other values are the recipe's or the model file's, whatever an earlier plan of the run had set. Settings that are
    not valid are ignored: the checks report them.

    Args:
        model: the model.
        job: the job.
        bridge: whether paths are those of Megatron-Bridge.
    """
    own = {name: model.overrides.get(name, getattr(model.recipe.architecture, name)) for name in SETTABLE}
    kinds = (
        {}
        if not job.recipe.set
        else bridge_settings.fields_of(model)
        if bridge
        else recipe_fields(model.recipe)
    )
    for setting in map(parsed, job.recipe.set):
        name = setting.path.removeprefix(BRIDGE_PREFIX if bridge else PREFIX)
        if name in SETTABLE and setting.path in kinds and not setting.problem:
            with contextlib.suppress(ValueError):
                own[name] = converted(setting.value, kinds[setting.path])
    return dataclasses.replace(model, architecture=dataclasses.replace(model.architecture, **own))
