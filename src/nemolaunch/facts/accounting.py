"""Accounts and limits in Slurm's accounting database, as `sacctmgr` and `scontrol show config` describe them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nemolaunch.facts.slurm_time import seconds

ASSOCIATIONS = ("account", "partition", "qos", "defaultqos", "maxwall", "maxtresperjob")
QUALITIES = ("name", "maxwall", "maxtresperjob", "maxtresperuser", "mintresperjob", "grptres")
NODES, GPUS = "node", "gres/gpu"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one job may ask for; None: no limit.

    Attributes:
        time_s: its duration.
        most_nodes, most_gpus: nodes and GPUs in all. Limits of a user's or a group's jobs together count, since a
            single job beyond them never starts.
        least_nodes, least_gpus: the fewest.
    """

    time_s: int | None = None
    most_nodes: int | None = None
    most_gpus: int | None = None
    least_nodes: int | None = None
    least_gpus: int | None = None


@dataclass(frozen=True, kw_only=True)
class Qos:
    """A quality of service and its limits."""

    name: str
    limits: Limits = Limits()


@dataclass(frozen=True, kw_only=True)
class Association:
    """One account that the user may bill.

    Attributes:
        partition: the only partition it holds for; empty: any.
        qos: the qualities of service it may use.
        default_qos: the one of jobs that name none; empty: the cluster's.
    """

    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()
    default_qos: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """What the accounting database says about this user.

    Attributes:
        enforced: what Slurm enforces of it: some of `associations`, `limits`, `qos`.
        associations, qualities: empty if not known.
    """

    enforced: frozenset[str] = frozenset()
    associations: tuple[Association, ...] = ()
    qualities: tuple[Qos, ...] = ()

    @property
    def accounts(self) -> tuple[str, ...]:
        """The user's accounts."""
        return tuple(dict.fromkeys(each.account for each in self.associations))

    def of(self, account: str, partition: str) -> Association | None:
        """Return the association that a job of an account in a partition has; None if not known."""
        fitting = [a for a in self.associations if a.account == account and a.partition in ("", partition)]
        return max(fitting, key=lambda a: len(a.partition), default=None)

    def quality(self, name: str | None) -> Qos | None:
        """Return the quality of service of that name; None if not known."""
        return next((qos for qos in self.qualities if qos.name == name), None)


def parse_accounting(config: str, associations: str, qualities: str) -> Accounting:
    """Parse the output of `scontrol show config` and of `sacctmgr --noheader --parsable2 show …`."""
    match = re.search(r"^AccountingStorageEnforce\s*=\s*(\S*)", config, re.MULTILINE)
    words = set((match[1] if match else "").lower().split(","))
    # slurm.conf manual: `safe` implies limits, each of which implies associations
    if words & {"safe", "all"}:
        words.add("limits")
    if "all" in words:
        words.add("qos")
    if words & {"limits", "qos"}:
        words.add("associations")
    return Accounting(
        enforced=frozenset(words & {"associations", "limits", "qos"}),
        associations=tuple(map(_association, _rows(associations, ASSOCIATIONS))),
        qualities=tuple(map(_quality, _rows(qualities, QUALITIES))),
    )


def _rows(answer: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    lines = [line.split("|") for line in answer.splitlines()]
    return [dict(zip(names, words, strict=True)) for words in lines if len(words) == len(names) and words[0]]


def _association(row: dict[str, str]) -> Association:
    return Association(
        account=row["account"],
        partition=row["partition"],
        qos=tuple(filter(None, row["qos"].split(","))),
        default_qos=row["defaultqos"],
        limits=_limits(row["maxwall"], [row["maxtresperjob"]], ""),
    )


def _quality(row: dict[str, str]) -> Qos:
    most = [row["maxtresperjob"], row["maxtresperuser"], row["grptres"]]
    return Qos(name=row["name"], limits=_limits(row["maxwall"], most, row["mintresperjob"]))


def _limits(wall: str, most: list[str], least: str) -> Limits:
    return Limits(
        time_s=seconds(wall) if wall else None,
        most_nodes=min(filter(None, (_count(words, NODES) for words in most)), default=None),
        most_gpus=min(filter(None, (_count(words, GPUS) for words in most)), default=None),
        least_nodes=_count(least, NODES),
        least_gpus=_count(least, GPUS),
    )


def _count(resources: str, name: str) -> int | None:
    """Return a count in trackable resources such as `cpu=400,gres/gpu=16,node=2`; None if it is not limited."""
    values = dict(word.partition("=")[::2] for word in resources.split(","))
    return int(values[name]) if values.get(name, "").isdigit() else None
