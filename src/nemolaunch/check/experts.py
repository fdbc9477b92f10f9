"""Mixture of experts: expert parallelism and what it requires of other settings."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.check.parallel import EP, sequence_unit
from nemolaunch.check.support import (
    ParallelSizes,
    around,
    divisors,
    each,
    error,
    fix,
    flag,
    multiples_near,
    shown,
    sizes,
    warning,
)
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

ETP = "expert_tensor_parallel_size"


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check the experts against the parallel sizes."""
    s, a = sizes(resolved), resolved.model.architecture
    if not a.num_moe_experts:
        yield from _dense(resolved, s)
        yield from _without_router(resolved)
        return
    if a.num_moe_experts % s.ep:
        yield error(
            "experts-by-ep",
            f"{shown(EP, s.ep)} does not divide the {a.num_moe_experts} experts of {resolved.model.name}",
            *each(EP, _ep_choices(a.num_moe_experts, s)),
            about=EP,
        )
    if a.moe_ffn_hidden_size and a.moe_ffn_hidden_size % s.etp:
        good = around(s.etp, divisors(a.moe_ffn_hidden_size))
        yield error(
            "expert-channels-by-etp",
            f"{shown(ETP, s.etp)} does not divide the {a.moe_ffn_hidden_size} channels of each expert of "
            f"{resolved.model.name}",
            *each(ETP, good),
            about=ETP,
        )
    if a.add_bias_linear and s.etp > 1:
        yield error(
            "expert-bias-by-etp",
            f"{shown(ETP, s.etp)} is not possible: the experts of {resolved.model.name} have biases",
            *each(ETP, [1]),
            about=ETP,
        )
    yield from _sequence_parallel(resolved, s)


def _ep_choices(experts: int, s: ParallelSizes) -> tuple[int, ...]:
    good = divisors(experts)
    return around(s.ep, [ep for ep in good if s.world % (s.etp * ep * s.pp) == 0]) or around(s.ep, good)


def _dense(resolved: Resolved, s: ParallelSizes) -> Iterator[Finding]:
    if s.ep > 1:
        yield error(
            "ep-without-experts",
            f"{shown(EP, s.ep)} is not possible: {resolved.model.name} has no experts",
            *each(EP, [1]),
            about=EP,
        )
    if resolved.job.parallelism.expert_tensor_parallel_size is not None:
        yield warning(
            "etp-without-experts",
            f"{shown(ETP, s.etp)} has no effect: {resolved.model.name} has no experts",
            fix(expert_tensor_parallel_size=None),
        )


def _without_router(resolved: Resolved) -> Iterator[Finding]:
    coefficient = resolved.job.objective.moe_z_loss_coeff
    if coefficient is not None:
        yield error(
            "router-loss-without-experts",
            f"{shown('moe_z_loss_coeff', f'{coefficient:g}')} has no effect: {resolved.model.name} has no experts",
            fix(moe_z_loss_coeff=None),
        )


def _sequence_parallel(resolved: Resolved, s: ParallelSizes) -> Iterator[Finding]:
    if s.tp == 1 or resolved.job.parallelism.sequence_parallel:
        return
    changes: dict[str, object] = {"sequence_parallel": True}
    length, unit = resolved.job.data.seq_length or 1, sequence_unit(s, True)
    if length % unit:
        changes["seq_length"] = multiples_near(length, unit)[0]
    yield error(
        "experts-need-sequence-parallel",
        f"{shown('tensor_model_parallel_size', s.tp)} without {flag('sequence_parallel')} is not possible: "
        f"{resolved.model.name} has experts",
        fix(**changes),
    )
