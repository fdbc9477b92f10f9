"""Whether the model of a checkpoint, or of an earlier run, computes the same as the job's."""

from __future__ import annotations

import dataclasses
from typing import Any

from nemolaunch.catalogue import ModelSpec, Recipe, recipes
from nemolaunch.facts.checkpoint import SHAPE_FIELDS, StartPoint
from nemolaunch.facts.saved_values import SavedRun
from nemolaunch.families.computed_fields import DROPOUT, other_fields, plain_fields
from nemolaunch.families.nemo_config import defaults, extends
from nemolaunch.job.settings import parsed
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.settings import PREFIX

Pairs = dict[str, tuple[Any, Any]]


def other_than_checkpoint(found: StartPoint, resolved: Resolved) -> Pairs:
    """Return the fields in which a checkpoint's model computes something else than the job's, with both values."""
    ours = _fields(resolved.model, resolved.job.recipe.set)
    return _compared(found, ours, resolved.model)


def other_than_run(saved: SavedRun, resolved: Resolved) -> Pairs:
    """Return the fields in which the model of an earlier run's plan computes something else, with both values.

    Its `Architecture` is compared, of which an older plan does not have all fields, and what else was set.
    """
    ours = plain_fields(dataclasses.asdict(resolved.model.architecture))
    theirs = plain_fields(saved.architecture)
    names = [name for name in saved.architecture if name in ours and name not in SHAPE_FIELDS]
    known = {row.name: row for row in recipes()}.get(saved.recipe or "")
    if known is None:
        return other_fields(theirs, ours, names)
    had = plain_fields({**defaults(known.config_class), **saved.overrides})
    has = _fields(resolved.model, ())
    beyond = [name for name in had if name in has and name not in ours and name not in SHAPE_FIELDS]
    return {**other_fields(theirs, ours, names), **other_fields(had, has, beyond)}


def recipes_of(found: StartPoint) -> list[str]:
    """Return the recipes whose model is the checkpoint's, by its class, its sizes and what it computes."""
    names = []
    for recipe in recipes():
        spec = _spec(recipe)
        same_class = recipe.model_class == found.model_class and bool(defaults(recipe.config_class))
        if same_class and not _compared(found, _fields(spec, ()), spec):
            names.append(recipe.name)
    return names


def base_of(found: StartPoint) -> str | None:
    """Return the recipe that a description of the checkpoint's model is best based on, if there is one.

    Its configuration class has the checkpoint's fields. Of several, it is the one that differs least, or else
    the smallest.
    """
    name = found.config_class

    def distance(recipe: Recipe) -> tuple[int, int]:
        spec = _spec(recipe)
        other = _compared(found, _fields(spec, ()), spec)
        size = recipe.architecture.num_layers * recipe.architecture.hidden_size
        return len([field for field in other if field not in SHAPE_FIELDS]), size

    near = [r for r in recipes() if name and (extends(r.config_class, name) or extends(name, r.config_class))]
    return min(near, key=distance).name if near else None


def sentences(pairs: Pairs) -> str:
    """Describe differing fields: `its rotary_base is 10000.0, the job's is 500000.0; …`."""
    return "; ".join(
        f"its {name} is {_said(had)}, the job's is {_said(has)}" for name, (had, has) in pairs.items()
    )


def _spec(recipe: Recipe) -> ModelSpec:
    return ModelSpec(
        name=recipe.name, recipe=recipe, architecture=recipe.architecture, overrides={}, source=""
    )


def _compared(found: StartPoint, ours: dict[str, Any], model: ModelSpec) -> Pairs:
    """Compare all fields, if the defaults of both classes are known; else those that both sides have."""
    known = defaults(found.config_class or "") and defaults(model.recipe.config_class)
    names = None if known else [name for name in found.fields if name in ours]
    pairs = other_fields(found.fields, ours, names) if found.fields else {}
    return {name: pair for name, pair in pairs.items() if name not in DROPOUT}


def _fields(model: ModelSpec, settings: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of the NeMo configuration that a model is compiled to."""
    base = defaults(model.recipe.config_class) or dataclasses.asdict(model.architecture)
    given = [setting for setting in map(parsed, settings) if not setting.problem]
    changed = {s.path.removeprefix(PREFIX): s.value for s in given if s.path.startswith(PREFIX)}
    return plain_fields({**base, **model.overrides, **changed})


def _said(value: Any) -> Any:
    return "not set" if value is None else value
