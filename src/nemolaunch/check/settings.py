"""Settings of fields of the compiled job: whether they exist, have the right type, and take effect."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nemolaunch.catalogue import bridge_settings
from nemolaunch.catalogue.recipe_fields import (
    callback_fields,
    converted,
    kind_words,
    not_on_cpu,
    recipe_fields,
    replaced_by,
)
from nemolaunch.check import bridge_setting_owners, setting_owners
from nemolaunch.check.setting_owners import SAME_VALUE
from nemolaunch.check.support import error, fix, flag, note, warning
from nemolaunch.errors import UsageError
from nemolaunch.findings import Finding, Fix
from nemolaunch.job import Job, spec_of
from nemolaunch.job.settings import Setting, parsed, path_of
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.backend import trains_with_bridge
from nemolaunch.resolve.settings import BRIDGE_PREFIX, PREFIX, SETTABLE

NOT_ON_CPU_AT_ALL = {
    "trainer.strategy.fsdp",
    "trainer.strategy.ddp.use_megatron_fsdp",
    "trainer.strategy.ddp.use_custom_fsdp",
    "model.config.softmax_type",
    "model.softmax_type",
}


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What is set: NeMo's recipe, or Megatron-Bridge's configuration.

    Attributes:
        name: in messages.
        fields: the type of each path.
        prefix: of the model's fields.
        estimated: beginnings of paths that memory or time depend on.
        owner: the field of a job that decides a path.
        fixed: why a path is always as nemolaunch sets it.
        replaced_by: the path that overwrites another when training starts.
    """

    name: str
    fields: dict[str, str]
    prefix: str
    estimated: tuple[str, ...]
    owner: Callable[[str, Job], str | None]
    fixed: Callable[[str], str | None]
    replaced_by: Callable[[str], str | None]


def _target(resolved: Resolved) -> _Target:
    if trains_with_bridge(resolved.job):
        return _Target(
            name="Megatron-Bridge",
            fields=bridge_settings.fields_of(resolved.model),
            prefix=BRIDGE_PREFIX,
            estimated=("model.", "ddp.", "mixed_precision.", "optimizer.exp_avg", "optimizer.main_",
                       "optimizer.use_precision_aware_optimizer"),
            owner=bridge_setting_owners.owner,
            fixed=bridge_setting_owners.fixed,
            replaced_by=bridge_settings.replaced_by,
        )  # fmt: skip
    return _Target(
        name="NeMo",
        fields=recipe_fields(resolved.model.recipe),
        prefix=PREFIX,
        estimated=("model.config.", "trainer.strategy.", "trainer.plugins.", "optim.config.exp_avg",
                   "optim.config.main_", "optim.config.use_precision_aware_optimizer"),
        owner=setting_owners.owner,
        fixed=setting_owners.fixed,
        replaced_by=replaced_by,
    )  # fmt: skip


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check every setting."""
    settings = [parsed(word) for word in resolved.job.recipe.set]
    if not settings:
        return
    target = _target(resolved)
    yield from _twice(resolved, settings)
    good = []
    for setting in settings:
        found = list(_problem(resolved, setting, target))
        yield from found
        if not found:
            good.append(setting)
    yield from _not_estimated(target, good)


def _without(resolved: Resolved, word: str, *others: str, **changes: Any) -> Fix:
    """Create the fix that replaces a setting by others and changes fields of the job."""
    kept = tuple(new for old in resolved.job.recipe.set for new in (others if old == word else (old,)))
    return fix(set=kept, **changes)


def _twice(resolved: Resolved, settings: list[Setting]) -> Iterator[Finding]:
    paths = [setting.path for setting in settings]
    for path in dict.fromkeys(path for path in paths if paths.count(path) > 1):
        words = [setting.word for setting in settings if setting.path == path]
        rest = [word for word in resolved.job.recipe.set if path_of(word) != path]
        yield error(
            "set-twice",
            f"{flag('set')} sets {path} more than once: {', '.join(words)}",
            *(fix(set=(*rest, word)) for word in dict.fromkeys(words)),
        )


def _problem(resolved: Resolved, setting: Setting, target: _Target) -> Iterator[Finding]:
    """Yield what is wrong with one setting: the first that applies."""
    path, word = setting.path, setting.word
    fields, field, why = target.fields, target.owner(path, resolved.job), target.fixed(path)
    source = target.replaced_by(path)
    if setting.problem:
        yield error("set-form", f"{flag('set')} {word} {setting.problem}", _without(resolved, word))
    elif field is not None:
        yield _owned(resolved, setting, field, target)
    elif why is not None:
        yield error("set-fixed", f"{flag('set')} {word}: {why}", _without(resolved, word))
    elif path not in fields:
        yield _unknown(resolved, setting, target)
    elif source is not None:
        to = [f"{source}={word.partition('=')[2]}"] if source in fields else []
        yield error(
            "set-replaced",
            f"{flag('set')} {word} has no effect: {target.name} replaces it by {source} when training starts",
            *(_without(resolved, word, other) for other in to),
            *([] if to else [_without(resolved, word)]),
        )
    else:
        yield from _wrong_value(resolved, setting, target)


def _owned(resolved: Resolved, setting: Setting, field: str, target: _Target) -> Finding:
    path, word = setting.path, setting.word
    if field == "model_name":
        model = resolved.model
        own = model.source.endswith((".yaml", ".yml"))
        where = f"a YAML file with `base: {model.recipe.name}` and use it as {flag('model_name')}"
        return error(
            "set-owned",
            f"{flag('set')} {word}: {path} is part of the architecture, which {flag('model_name')} describes; set "
            f"`{path.removeprefix(target.prefix)}` in {model.source if own else where}",
            _without(resolved, word),
        )
    spec = spec_of(field)
    changes: dict[str, Any] = {}
    if path.rpartition(".")[2] in (field, SAME_VALUE.get(field)):
        with contextlib.suppress(UsageError):
            changes[field] = spec.checked(setting.value)
    return error(
        "set-owned",
        f"{flag('set')} {word}: {path} is decided by {spec.flag}",
        _without(resolved, word, **changes),
    )


def _unknown(resolved: Resolved, setting: Setting, target: _Target) -> Finding:
    path, word, fields = setting.path, setting.word, target.fields
    value = word.partition("=")[2]
    bridge = trains_with_bridge(resolved.job)
    whole = f"{target.name}'s configuration" if bridge else f"the recipe {resolved.model.recipe.name}"
    if any(known.startswith(f"{path}.") for known in fields):
        return error(
            "set-unknown",
            f"{flag('set')} {word}: {path} is a part of {whole}, not a field; name a field below it",
            _without(resolved, word),
        )
    near = nearest_paths(path, fields)
    return error(
        "set-unknown",
        f"{flag('set')} {word}: {whole} has no field {path}",
        *(_without(resolved, word, f"{other}={value}") for other in near),
        *([] if near else [_without(resolved, word)]),
    )


def nearest_paths(path: str, fields: Iterable[str]) -> list[str]:
    """Return up to three paths whose last name is that of an unknown path, or the most similar one to it."""
    by_name: dict[str, list[str]] = {}
    for known in fields:
        by_name.setdefault(known.rpartition(".")[2], []).append(known)
    part, _, last = path.rpartition(".")
    names = difflib.get_close_matches(last, by_name, n=1, cutoff=0.7)
    found = [known for name in names for known in by_name[name]]
    return sorted(found, key=lambda known: known.rpartition(".")[0] != part)[:3]


def _wrong_value(resolved: Resolved, setting: Setting, target: _Target) -> Iterator[Finding]:
    path, word = setting.path, setting.word
    kind = target.fields[path]
    if kind == "object":
        yield error(
            "set-type",
            f"{flag('set')} {word}: {path} holds an object of {target.name}, which cannot be written as a value",
            _without(resolved, word),
        )
        return
    try:
        converted(setting.value, kind)
    except ValueError:
        yield error(
            "set-type",
            f"{flag('set')} {word}: {path} takes {kind_words(kind)}, not {setting.value!r}",
            _without(resolved, word),
        )
        return
    yield from _no_effect(resolved, setting)


def _no_effect(resolved: Resolved, setting: Setting) -> Iterator[Finding]:
    """Yield settings that something else overrides, or that this device does not support."""
    path, word = setting.path, setting.word
    name = path.rpartition(".")[2]
    bridge = trains_with_bridge(resolved.job)
    callbacks = [c for c in resolved.model.recipe.callbacks if name in callback_fields(c) and not bridge]
    if path.startswith("data.") and resolved.job.data.data_mode == "stream":
        yield error(
            "set-no-effect",
            f"{flag('set')} {word} has no effect with {flag('data_mode')} stream, which does not use NeMo's data "
            "module",
            _without(resolved, word),
        )
    elif callbacks and setting.value is None:
        yield error(
            "set-no-effect",
            f"{flag('set')} {word} has no effect: {callbacks[0]} replaces null with a value of its own",
            _without(resolved, word),
        )
    elif resolved.device == "cpu" and path in NOT_ON_CPU_AT_ALL:
        yield error(
            "set-not-on-cpu",
            f"{flag('set')} {word} cannot be rehearsed on the CPU",
            _without(resolved, word),
        )
    elif resolved.device == "cpu" and not_on_cpu(path, bridge=bridge) and setting.value not in (False, None):
        yield warning(
            "set-not-on-cpu",
            f"{flag('set')} {word} has no effect in a rehearsal on the CPU",
            _without(resolved, word),
        )


def _not_estimated(target: _Target, settings: list[Setting]) -> Iterator[Finding]:
    """Note settings that may change memory or time in ways that the estimates do not know."""
    unknown = [
        setting.path
        for setting in settings
        if setting.path.startswith(target.estimated)
        and setting.path.removeprefix(target.prefix) not in SETTABLE
    ]
    if unknown:
        yield note(
            "set-not-estimated",
            f"the estimates of memory and time do not include {flag('set')} {', '.join(unknown)}",
        )
