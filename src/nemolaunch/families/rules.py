"""Match tensor names of the two sides by a family's rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nemolaunch.errors import NemolaunchError
from nemolaunch.families.ops import Op, Same

SHOWN = 4


@dataclass(frozen=True)
class Rule:
    """Names on both sides, and the operation between their tensors.

    In names, `*` matches a number (of a layer or an expert), which is the same on both sides. `#` stands for the
    number of each expert in turn, if one tensor on the other side has all experts. If a source name matches several
    rules, the one whose NeMo names exist in the model applies.
    """

    hf: tuple[str, ...]
    nemo: tuple[str, ...]
    op: Op = field(default_factory=Same)


def rule(hf: str, nemo: str, op: Op | None = None) -> Rule:
    """Return a rule, given names separated by spaces."""
    return Rule(tuple(hf.split()), tuple(nemo.split()), op or Same())


@dataclass(frozen=True)
class Group:
    """Tensors that are read, transformed and written together."""

    hf: tuple[str, ...]
    nemo: tuple[str, ...]
    op: Op


def import_groups(
    rules: Iterable[Rule],
    hf: Collection[str],
    nemo: Mapping[str, object],
    num_experts: int,
    *,
    ignored: Collection[str] = (),
) -> list[Group]:
    """Return the groups that turn the tensors named `hf` into exactly those named `nemo`, the model's parameters.

    Groups are in the order of `hf`. `ignored` are source names that are not used.

    Raises:
        NemolaunchError: a source tensor has no parameter, or a parameter no source; with their names.
    """
    found: list[Group] = []
    used: set[str] = set(ignored)
    filled: set[str] = set()
    available = set(hf)
    missing: list[str] = []
    for group in _candidates(rules, hf, nemo, num_experts):
        if filled.isdisjoint(group.nemo):
            absent = [name for name in group.hf if name not in available]
            missing += absent
            used.update(group.hf)
            filled.update(group.nemo)
            if not absent:
                found.append(group)
    unplaced = [name for name in hf if name not in used]
    unfilled = [name for name in nemo if name not in filled]
    _report(missing, unplaced, unfilled)
    position = {name: number for number, name in enumerate(hf)}
    return sorted(found, key=lambda group: position[group.hf[0]])


def export_groups(rules: Iterable[Rule], nemo: Mapping[str, object], num_experts: int) -> list[Group]:
    """Return the groups for all parameters of a NeMo model; their `hf` are the Hugging Face tensors.

    Raises `NemolaunchError` for a parameter that no rule matches.
    """
    found: list[Group] = []
    filled: set[str] = set()
    for one in rules:
        anchor = _pattern(one.nemo[0].replace("#", "0"))
        for name in nemo:
            match = anchor.match(name)
            if match and name not in filled:
                group = _group(one, match.groups(), num_experts)
                if all(part in nemo for part in group.nemo):
                    found.append(group)
                    filled.update(group.nemo)
    _report([], [], [name for name in nemo if name not in filled])
    order = {name: number for number, name in enumerate(nemo)}
    return sorted(found, key=lambda group: order[group.nemo[0]])


def _candidates(
    rules: Iterable[Rule], hf: Collection[str], nemo: Mapping[str, object], num_experts: int
) -> Iterator[Group]:
    for one in rules:
        seen = set()
        for pattern in one.hf:  # one existing name is enough to report the others of its group as missing
            anchor = _pattern(pattern)
            for name in hf:
                match = anchor.match(name)
                if match and match.groups() not in seen:
                    seen.add(match.groups())
                    group = _group(one, match.groups(), num_experts)
                    if all(part in nemo for part in group.nemo):
                        yield group


def _group(one: Rule, numbers: Sequence[str], num_experts: int) -> Group:
    def names(patterns: tuple[str, ...]) -> tuple[str, ...]:
        filled = []
        for pattern in patterns:
            for number in numbers:
                pattern = pattern.replace("*", number, 1)
            if "#" in pattern:
                filled += [pattern.replace("#", str(expert)) for expert in range(num_experts)]
            else:
                filled.append(pattern)
        return tuple(filled)

    return Group(names(one.hf), names(one.nemo), one.op)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"(\d+)") + "$")


def _report(missing: list[str], unplaced: list[str], unfilled: list[str]) -> None:
    faults = []
    if missing:
        faults.append(f"  missing: {counted(missing, 'tensor')} of the source: {some(missing)}")
    if unplaced:
        faults.append(
            f"  unknown to the model: {counted(unplaced, 'tensor')} of the source: {some(unplaced)}"
        )
    if unfilled and not missing:
        faults.append(f"  without a source: {counted(unfilled, 'parameter')} of the model: {some(unfilled)}")
    if faults:
        raise NemolaunchError(
            "the tensors do not match the model that the source describes:\n" + "\n".join(faults)
        )


def counted(names: Sequence[str], noun: str) -> str:
    """Return a count with its noun: "1 tensor", "17 tensors"."""
    return f"{len(names):,} {noun}{'' if len(names) == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, joined with commas."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
