"""Facts about the Slurm cluster, from `sinfo` and similar commands; empty if they are not installed."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field

from nemolaunch.facts.accounting import ASSOCIATIONS, QUALITIES, Accounting, parse_accounting
from nemolaunch.facts.partitions import SINFO, Partition, parse_sinfo, with_limits
from nemolaunch.facts.slurm_variables import plain_environment
from nemolaunch.system.commands import answers

_TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster as this user sees it."""

    partitions: tuple[Partition, ...] = ()
    accounting: Accounting = field(default_factory=Accounting)


def look_at_cluster() -> Cluster:
    """Query Slurm's commands concurrently; facts are missing if they are not installed or do not answer."""
    nodes, limits, config, mine, qualities = answers(
        ["sinfo", "--noheader", f"--format={SINFO}"],
        ["scontrol", "--oneliner", "show", "partition"],
        ["scontrol", "show", "config"],
        ["sacctmgr", "-nP", "show", "associations", f"user={_user()}", f"format={','.join(ASSOCIATIONS)}"],
        ["sacctmgr", "-nP", "show", "qos", f"format={','.join(QUALITIES)}"],
        timeout_s=_TIMEOUT_S,
        environment=plain_environment(os.environ),
    )
    return Cluster(
        partitions=with_limits(parse_sinfo(nodes or ""), limits or ""),
        accounting=parse_accounting(config or "", mine or "", qualities or ""),
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
