"""What a user asks for: the one definition from which flags, YAML keys and plans are made.

Every field carries its command-line form, so `cli/parsing/flags.py` and `--config` need no list of their own.
`None` means "not given": the model's recipe or the plan decides. Nothing here looks at the machine.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemolaunch.errors import UsageError
from nemolaunch.job.fields import FieldSpec
from nemolaunch.job.place import Launch
from nemolaunch.job.subject import Data, Model, Objective, Stream
from nemolaunch.job.training import Batch, Memory, Optimizer, Parallelism, Speed
from nemolaunch.job.watching import Checkpoint, Guards, Logging

# Fields that express the same quantity in different units: at most one of each group may be given.
ALTERNATIVES: tuple[tuple[str, ...], ...] = (
    ("global_batch_size", "global_batch_tokens"),
    ("max_steps", "max_tokens", "tokens_per_param"),
    ("warmup_steps", "warmup_ratio"),
    ("decay_steps", "constant_steps"),
)

PARTS: dict[str, type] = {
    "launch": Launch,
    "model": Model,
    "data": Data,
    "objective": Objective,
    "stream": Stream,
    "batch": Batch,
    "parallelism": Parallelism,
    "memory": Memory,
    "speed": Speed,
    "optimizer": Optimizer,
    "logging": Logging,
    "guards": Guards,
    "checkpoint": Checkpoint,
}
SECRETS = frozenset({"hf_token"})


@dataclass(frozen=True, init=False, repr=False)
class Job:
    """A complete pretraining job. Immutable: derive a variant with `with_values`.

    Fields are named like their flag, an alias of it or its short form; short forms of two or more letters may be
    lower case. A whole part can be passed by the name of the part:

        Job(model="llama32_1b", tokenizer="my/tokenizer", data="data", tp=2, max_steps=1000, lr=3e-4)

    Raises UsageError for unknown names and values of the wrong type, listing all of them.
    """

    launch: Launch
    model: Model
    data: Data
    objective: Objective
    stream: Stream
    batch: Batch
    parallelism: Parallelism
    memory: Memory
    speed: Speed
    optimizer: Optimizer
    logging: Logging
    guards: Guards
    checkpoint: Checkpoint

    def __init__(self, **values: Any) -> None:
        parts = {
            part: values.pop(part) if isinstance(values.get(part), cls) else cls()
            for part, cls in PARTS.items()
        }
        for part, changes in _by_part(values).items():
            parts[part] = dataclasses.replace(parts[part], **changes)
        for part, value in parts.items():
            object.__setattr__(self, part, value)

    def __repr__(self) -> str:
        """Show what differs from the defaults, without secrets."""
        changed = [
            f"{spec.name}={self.get(spec.name)!r}"
            for spec in specs()
            if spec.name not in SECRETS and self.get(spec.name) != spec.default
        ]
        return f"Job({', '.join(changed)})"

    def with_values(self, **values: Any) -> Job:
        """Return a copy with some fields changed: `job.with_values(seq_length=512)`.

        Raises UsageError for unknown names and values of the wrong type.
        """
        return dataclasses.replace(
            self,
            **{
                part: dataclasses.replace(getattr(self, part), **changes)
                for part, changes in _by_part(values).items()
            },
        )

    def values(self) -> dict[str, Any]:
        """Return all fields by flag name, without secrets, in types that YAML and JSON can hold."""
        out: dict[str, Any] = {}
        for spec in specs():
            if spec.name in SECRETS:
                continue
            value = getattr(getattr(self, spec.part), spec.name)
            out[spec.name] = list(value) if isinstance(value, tuple) else value
        return out

    def get(self, name: str) -> Any:
        """Return the value of the field that a flag sets."""
        return getattr(getattr(self, spec_of(name).part), name)


def checked_values(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return values by field name, in the types of their fields, for any spelling of the names.

    Raises UsageError listing all problems.
    """
    found, problems = {}, []
    for word, value in values.items():
        try:
            spec = spec_of(field_name(str(word)))
            found[spec.name] = spec.checked(value)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems))
    return found


def _by_part(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return checked values by part and field name. Raise UsageError listing all problems."""
    by_part: dict[str, dict[str, Any]] = {}
    for name, value in checked_values(values).items():
        by_part.setdefault(spec_of(name).part, {})[name] = value
    return by_part


_specs: tuple[FieldSpec, ...] | None = None


def specs() -> tuple[FieldSpec, ...]:
    """Return every field of the job, in the order of its parts."""
    global _specs
    if _specs is None:
        _specs = tuple(_read_specs())
    return _specs


def _read_specs() -> Iterator[FieldSpec]:
    for part, cls in PARTS.items():
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            arguments = typing.get_args(hints[f.name])
            many = typing.get_origin(hints[f.name]) is tuple
            kind = arguments[0] if arguments else hints[f.name]
            yield FieldSpec(
                part=part,
                name=f.name,
                kind=kind,
                optional=type(None) in arguments,
                many=many,
                default=f.default,
                **typing.cast(Mapping[str, Any], f.metadata),
            )


_names: dict[str, str] = {}


def field_name(word: str) -> str:
    """Return the name of the field that a flag, alias or short form stands for, with or without dashes.

    `-` and `_` are interchangeable; short forms of two or more letters may be lower case. An unknown word is
    returned unchanged.
    """
    if not _names:
        for spec in specs():
            short = spec.short.lstrip("-") if spec.short else spec.name
            names = (spec.name, *spec.aliases, short, short.lower() if len(short) > 1 else short)
            _names.update({name.lstrip("-").replace("-", "_"): spec.name for name in names})
    word = word.lstrip("-").replace("-", "_")
    return _names.get(word, word)


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values saved by an older version under the current names of their fields."""
    return {field_name(name): value for name, value in values.items()}


def spec_of(name: str) -> FieldSpec:
    """Return the field of that name; raise UsageError with the closest names if there is none."""
    for spec in specs():
        if spec.name == name:
            return spec
    near = [spec.name for spec in nearest_fields(name)]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UsageError(f"a job has no field {name!r}{hint}")


def nearest_fields(name: str) -> list[FieldSpec]:
    """Return the fields an unknown name may mean: similar names, then fields whose help contains its words."""
    import difflib

    by_name = {spec.name: spec for spec in specs()}
    alike = difflib.get_close_matches(name, by_name, n=3, cutoff=0.7)
    words = name.replace("_", " ").lower()
    said = [s.name for s in specs() if len(words) > 3 and words in s.help.lower()]
    return [by_name[n] for n in dict.fromkeys([*alike, *said])][:3]
