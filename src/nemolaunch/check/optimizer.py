"""Optimizer and learning rate schedule."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, shown
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved


def rules(resolved: Resolved) -> Iterator[Finding]:
    """What the schedule and the distributed optimizer ask for."""
    o = resolved.job.optimizer
    if o.optimizer == "sgd" and not o.disable_dist_optim:
        yield error(
            "sgd-is-not-sharded",
            f"{shown('optimizer', 'sgd')} without {flag('disable_dist_optim')}",
            fix(optimizer="adam"),
            fix(disable_dist_optim=True, optim_cpu_offloading=False, optim_cpu_offloading_frac=1.0),
        )
    if o.min_lr > o.lr or (o.constant_steps and o.min_lr == o.lr):
        least = " with --constant-steps" if o.min_lr == o.lr else ""
        yield error(
            "min-lr-above-lr",
            f"{shown('min_lr', f'{o.min_lr:g}')} is not below {shown('lr', f'{o.lr:g}')}{least}",
            *each("min_lr", [float(f"{o.lr / 10:.6g}")]),
            about="min_lr",
        )
