"""The optimizer and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nemolaunch.check.support import around, divisors, each, error, fix, flag, shown, sizes, warning
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

INSTANCES = "num_distributed_optimizer_instances"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check what the distributed optimizer requires."""
    o = resolved.job.optimizer
    if o.optimizer == "sgd" and not o.disable_dist_optim:
        yield error(
            "sgd-is-not-sharded",
            f"{shown('optimizer', 'sgd')} without {flag('disable_dist_optim')} is not possible: the distributed "
            "optimizer supports Adam only",
            fix(optimizer="adam"),
            fix(disable_dist_optim=True, optim_cpu_offloading=False, optim_cpu_offloading_frac=1.0),
        )
    if o.optimizer == "sgd":
        yield from _sgd_resume(resolved)
    yield from _instances(resolved)


def epsilon(resolved: Resolved) -> Iterator[Finding]:
    """Check that the optimizer uses `--adam-eps`."""
    o = resolved.asked.optimizer  # the recipe's value is filled in otherwise
    if o.adam_eps is not None and o.optimizer != "adam":
        yield warning(
            "adam-eps-not-used",
            f"{shown('adam_eps', f'{o.adam_eps:g}')} has no effect with {shown('optimizer', o.optimizer)}",
            fix(adam_eps=None),
            fix(optimizer="adam"),
        )


def _sgd_resume(resolved: Resolved) -> Iterator[Finding]:
    """Report that SGD's state cannot be loaded: Megatron gives its optimizer no function that allocates it."""
    reason = "Megatron cannot load the state of this optimizer (`init_state_fn` is None: TypeError)"
    if resolved.earlier is not None:
        yield error(
            "sgd-cannot-resume",
            f"{shown('optimizer', 'sgd')} cannot resume {resolved.earlier.where}: {reason}",
            fix(resume="never"),
        )
    else:
        yield warning(
            "sgd-cannot-resume",
            f"a run with {shown('optimizer', 'sgd')} cannot be resumed after it is stopped: {reason}",
            fix(optimizer="adam"),
        )


def _instances(resolved: Resolved) -> Iterator[Finding]:
    """Check the number of copies of the sharded optimizer."""
    o, s = resolved.job.optimizer, sizes(resolved)
    count = o.num_distributed_optimizer_instances
    if count == 1:
        return
    if o.disable_dist_optim:
        yield error(
            "instances-not-sharded",
            f"{shown(INSTANCES, count)} has no effect with {flag('disable_dist_optim')}: every rank holds the whole "
            "optimizer",
            *each(INSTANCES, [1]),
            fix(disable_dist_optim=False),
            about=INSTANCES,
        )
    if count < 1 or s.world % s.replica or s.world % s.expert_replica:
        return  # reported elsewhere
    ranks, expert_ranks = s.world // s.tp // s.pp, s.world // s.expert_replica
    if ranks % count or expert_ranks % count:
        experts = f", and the {expert_ranks} expert data parallel ranks" if expert_ranks != ranks else ""
        good = [n for n in divisors(math.gcd(ranks, expert_ranks)) if n > 1] or [1]
        yield error(
            "instances-by-data-parallel",
            f"{shown(INSTANCES, count)} does not divide the {ranks} data and context parallel ranks{experts}",
            *each(INSTANCES, around(count, good)),
            about=INSTANCES,
        )
