"""Slurm's account, partition and time limit, checked against what Slurm reports about the cluster."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from nemolaunch.check import slurm_limits, slurm_nodes
from nemolaunch.check.support import each, error, flag, shown, warning
from nemolaunch.facts.partitions import Partition
from nemolaunch.facts.slurm_time import seconds, slurm_time
from nemolaunch.findings import Finding, errors
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved

A_DAY_S = 86400
SHORT_S = 600
SHOWN_NAMES = 8
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", re.ASCII)
_UNLIMITED = ("unlimited", "infinite")


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check account, partition, nodes and time limit."""
    launch = resolved.job.launch
    if launch.executor != "slurm":
        return
    yield from _account(resolved)
    known = resolved.facts.partitions
    if not all(_WORD.fullmatch(name) for name in launch.partition.split(",")):
        yield error(
            "slurm-partition",
            f"{flag('partition')} {launch.partition!r} is not a valid partition name",
            *each("partition", [p.name for p in known[:1]]),
        )
    else:
        yield from _on_cluster(resolved, known)
    yield from _not_given(resolved)
    yield from _time(resolved)


def _is_given(resolved: Resolved, name: str) -> bool:
    return name in resolved.origins or resolved.job.get(name) != spec_of(name).default


def _not_given(resolved: Resolved) -> Iterator[Finding]:
    """Name the defaults that a job would silently use where nothing says whether the cluster has them."""
    accounting = resolved.facts.accounting
    known = {
        "account": accounting.accounts if "associations" in accounting.enforced else (),
        "partition": tuple(p.name for p in resolved.facts.partitions),
    }
    missing = [name for name in known if not _is_given(resolved, name) and not known[name]]
    if missing:
        flags = " and ".join(map(flag, missing))
        used = " and ".join(f"{name} {resolved.job.get(name)}" for name in missing)
        mine = accounting.accounts if "account" in missing else ()
        yours = f"; your accounts are {_listed(mine)}" if mine else ""
        yield warning(
            "slurm-not-given",
            f"{flags} {'is' if len(missing) == 1 else 'are'} not given, so the job is submitted with {used}{yours}",
            *each("account", mine[:2]),
        )


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _as_shown(resolved: Resolved, name: str) -> str:
    """Return a flag with its value, and that it is the default if it is not given."""
    default = "" if _is_given(resolved, name) else " (not given: the default)"
    return f"{shown(name, resolved.job.get(name))}{default}"


def _account(resolved: Resolved) -> Iterator[Finding]:
    given, accounting = resolved.job.launch.account, resolved.facts.accounting
    mine = accounting.accounts if "associations" in accounting.enforced else ()
    if not _WORD.fullmatch(given):
        yield error(
            "slurm-account",
            f"{flag('account')} {given!r} is not a valid account name",
            *each("account", mine[:1]),
            about="account",
        )
    elif mine and given not in mine:
        near = difflib.get_close_matches(given, mine, n=1) or mine[:2]
        yield error(
            "slurm-account",
            f"{_as_shown(resolved, 'account')} is not one of your Slurm accounts: {_listed(mine)}",
            *each("account", near),
            about="account",
        )


def _on_cluster(resolved: Resolved, known: tuple[Partition, ...]) -> Iterator[Finding]:
    """Check each partition that the job names: one that can run it is enough."""
    names = tuple(p.name for p in sorted(known, key=lambda p: not p.default))
    if not known:
        return
    asked = resolved.job.launch.partition.split(",")
    wrong = [name for name in asked if name not in names]
    if wrong:
        near = difflib.get_close_matches(wrong[0], names, n=2) or names[:2]
        others = ",".join(name for name in asked if name not in wrong)
        yield error(
            "slurm-partition",
            f"{_as_shown(resolved, 'partition')}: {_listed(tuple(wrong))} is not a partition of this cluster, which "
            f"has {_listed(names)}",
            *each("partition", [others] if others else near),
            about="partition",
        )
        return
    found = [list(_in_partition(resolved, p, known)) for p in known if p.name in asked]
    yield from min(found, key=lambda each: (len(errors(each)), len(each)))


def _in_partition(resolved: Resolved, chosen: Partition, known: tuple[Partition, ...]) -> Iterator[Finding]:
    launch = resolved.job.launch
    if not chosen.up:
        others = [p.name for p in known if p.up and p.num_nodes >= launch.num_nodes]
        accepts = chosen.state == "down"
        does = "starts no jobs at the moment" if accepts else "accepts no jobs at the moment"
        yield (warning if accepts else error)(
            "slurm-partition-down",
            f"{shown('partition', chosen.name)} is {chosen.state} and {does}",
            *each("partition", others[:2]),
            about="partition",
        )
    yield from slurm_nodes.in_partition(resolved, chosen)
    yield from slurm_limits.in_partition(resolved, chosen)
    yield from _partition_time(resolved, chosen)


def _partition_time(resolved: Resolved, chosen: Partition) -> Iterator[Finding]:
    given, limit = resolved.job.launch.time, chosen.time_limit_s
    if given is None or limit is None or not _is_time(given):
        return
    wanted = _seconds(given)
    if wanted is None or wanted > limit:
        yield error(
            "slurm-time-limit",
            f"{shown('time', given)} exceeds the limit of partition {chosen.name}, {slurm_time(limit)}",
            *each("time", [slurm_time(limit)]),
            about="time",
        )


def _seconds(given: str) -> int | None:
    return None if given.lower() in _UNLIMITED else seconds(given)


def _is_time(given: str) -> bool:
    return given.lower() in _UNLIMITED or bool(seconds(given))


def _time(resolved: Resolved) -> Iterator[Finding]:
    """Check the time limit if one is given; otherwise the partition's applies."""
    given = resolved.job.launch.time
    if given is None:
        return
    if not _is_time(given):
        yield error(
            "slurm-time",
            f"{flag('time')} {given!r} is not a time limit such as 90, 30:00, 12:00:00 or 3-00:00:00",
            *each("time", [slurm_time(_informal_seconds(given) or A_DAY_S)]),
            about="time",
        )
        return
    wanted = _seconds(given)
    if wanted is not None and wanted < SHORT_S:
        yield warning(
            "slurm-time-short",
            f"{shown('time', given)} leaves little time for training once NeMo has started",
        )


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(d|h|m|s)[a-z]*", re.ASCII)


def _informal_seconds(text: str) -> int | None:
    """Return the seconds of an informal time such as `12h`, `1.5 days` or `1d 12h`; None if it is not one."""
    word = text.strip().lower()
    if not re.fullmatch(rf"(?:{_SPAN.pattern}[\s,]*)+", word, re.ASCII):
        return None
    total = round(sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(word)))
    return total if 0 < total < 10**9 else None
