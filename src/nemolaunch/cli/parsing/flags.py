"""The job's flags and configuration file, both derived from `nemolaunch.job`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.cluster_profile import ClusterProfile
from nemolaunch.cli.parsing.yaml_file import checked_flags, read_yaml, refuse_alternatives
from nemolaunch.errors import UsageError
from nemolaunch.job import ALTERNATIVES, PARTS, Job, spec_of, specs
from nemolaunch.job.fields import FieldSpec
from nemolaunch.job.settings import merged


def add_job_flags(parser: Parser) -> None:
    """Add one argument group per part of the job. A flag that is not given does not appear in the namespace.

    There are so many that `--help` then shows only the common ones.
    """
    parser.add_short_help()
    for part, cls in PARTS.items():
        group = parser.add_argument_group(part, (cls.__doc__ or "").splitlines()[0])
        for spec in specs():
            if spec.part == part:
                group.add_argument(*_names(spec), **_options(spec))


def add_some_job_flags(parser: argparse.ArgumentParser, fields: tuple[str, ...]) -> None:
    """Add the flags of these fields only, in this order."""
    for spec in map(spec_of, fields):
        parser.add_argument(*_names(spec), **_options(spec))


def _names(spec: FieldSpec) -> list[str]:
    return [name for name in (spec.short, spec.flag, *spec.aliases) if name]


def _options(spec: FieldSpec) -> dict[str, Any]:
    shown = spec.default is not None and spec.default is not False and spec.default not in ("", ())
    options: dict[str, Any] = {
        "dest": spec.name,
        "default": argparse.SUPPRESS,
        "help": spec.help.replace("%", "%%") + (f" (default: {_word(spec.default)})" if shown else ""),
    }
    if spec.kind is bool:
        if spec.default:
            options["help"] = f"{spec.help} (default; --no-{spec.flag[2:]} turns it off)"
        elif spec.optional:
            options["help"] = f"{spec.help}; --no-{spec.flag[2:]} turns it off (default: the recipe's)"
        return {**options, "action": Switch}
    options["metavar"] = spec.metavar or {int: "N", float: "X"}.get(
        spec.kind, spec.name.rpartition("_")[2].upper()
    )
    if spec.many:
        return {**options, "nargs": "+", "type": str, **({"action": "extend"} if spec.repeats else {})}
    if spec.choices:
        return {**options, "choices": spec.choices, "metavar": "|".join(spec.choices)}
    return {**options, "type": str if spec.scaled else spec.kind}


def _word(default: Any) -> str:
    """Return a default as it would be typed."""
    return " ".join(default) if isinstance(default, tuple) else str(default)


class Switch(argparse.Action):
    """A flag without a value and its opposite: `--fp8` and `--no-fp8`, `--no-async-save` and `--async-save`.

    The opposite undoes what a configuration file says, so `--help` does not list it.
    """

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        self._off = {
            "--" + word[5:] if word.startswith("--no-") else "--no-" + word[2:]
            for word in option_strings
            if word.startswith("--")
        }
        super().__init__([*option_strings, *sorted(self._off)], dest, nargs=0, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store whether the flag or its opposite was given."""
        setattr(namespace, self.dest, option_string not in self._off)


def job_from(given: Mapping[str, Any], config: Path | None, profile: ClusterProfile | None = None) -> Job:
    """Return the job that a cluster's profile, a preset, a configuration file and flags describe; later sources win.

    A flag also overrides the same quantity in another unit: `--max-tokens` overrides `max_steps` in the file.

    Raises:
        UsageError: no model is named, a key is unknown, or one source sets the same quantity twice.
    """
    values, _ = _described(given, config, profile)
    require_model(values.get("model_name"))
    return Job().with_values(**values)


def origins_from(
    given: Mapping[str, Any], config: Path | None, profile: ClusterProfile | None = None
) -> dict[str, str]:
    """Return where each given value comes from: `flag`, `file NAME`, `preset NAME` or `cluster NAME`."""
    return _described(given, config, profile)[1]


def _described(
    given: Mapping[str, Any], config: Path | None, profile: ClusterProfile | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of all sources by field name, and the origin of each."""
    file = read_config(config) if config else {}
    refuse_alternatives(given, "")
    preset = given.get("preset", file.get("preset"))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, more in (
        (f"cluster {profile.name}" if profile else "", profile.values if profile else {}),
        (f"preset {preset}", preset_flags(preset)),
        (f"file {config.name if config else ''}", file),
        ("flag", given),
    ):
        values = overlaid(values, more)
        origins.update(dict.fromkeys(more, origin))
    return values, {name: origins[name] for name in values}


def require_model(name: str | None) -> None:
    """Raise UsageError if no model is named."""
    if not name:
        raise UsageError(
            "--model-name is required: a NeMo 2 recipe, a built-in configuration, or a YAML file (see "
            "`nemolaunch models`)"
        )


def overlaid(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values updated with others, which also replace the same quantity in another unit.

    Settings of the recipe are merged by path.
    """
    replaced = {
        name for group in ALTERNATIVES if any(given.get(n) is not None for n in group) for name in group
    }
    settings = {"set": merged(values.get("set", ()), given["set"])} if given.get("set") else {}
    return {**{name: value for name, value in values.items() if name not in replaced}, **given, **settings}


def preset_flags(word: str | None) -> dict[str, Any]:
    """Return the validated flags of a preset; an empty dictionary without a name.

    Raises:
        UsageError: there is no such preset, or its flags are not valid.
    """
    if word is None:
        return {}
    from nemolaunch import catalogue

    flags = catalogue.preset(word).flags
    if "preset" in flags:
        raise UsageError(f"--preset {word} names another preset")
    return checked_flags(flags, f"--preset {word}: ")


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file (or a run's plan.json) with flag names as keys; `-` and `_` are interchangeable.

    Raises:
        UsageError: it cannot be read, is not a mapping, has keys that are not flags, or sets one quantity twice.
    """
    content = read_yaml(path, "--config")
    if content.get("format") == 1 and isinstance(content.get("values"), dict):
        content = _reopened(path)
    return checked_flags(content, f"--config {path}: ")


def _reopened(path: Path) -> dict[str, Any]:
    """Return the values of a saved plan; those that follow from others are computed again."""
    from nemolaunch.planning import Plan
    from nemolaunch.planning.open_values import open_values

    plan = Plan.load(path)
    return {**plan.job.values(), **open_values(plan)}
