"""Tensor, sequence and context parallelism, and the number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from nemolaunch.check.families import limits_of, splits
from nemolaunch.check.support import (
    ParallelSizes,
    around,
    divisors,
    each,
    error,
    fits_world,
    fix,
    flag,
    multiples_near,
    shown,
    sizes,
    warning,
)
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.system.quantities import counted

TP = "tensor_model_parallel_size"
PP = "pipeline_model_parallel_size"
CP = "context_parallel_size"
EP = "expert_model_parallel_size"


def tensor_parts(resolved: Resolved) -> dict[str, tuple[int, str]]:
    """Return what is split over a tensor parallel group: code → (count, description with a place for it)."""
    a = resolved.model.architecture
    parts = {
        "heads-by-tp": (a.num_attention_heads, "the {} attention heads"),
        "query-groups-by-tp": (a.num_query_groups, "the {} key/value heads"),
    }
    if a.ffn_hidden_size:
        parts["ffn-by-tp"] = (a.ffn_hidden_size, "the {} channels of the MLP (ffn_hidden_size)")
    shared = a.moe_shared_expert_intermediate_size
    if shared:
        parts["shared-expert-by-tp"] = (shared, "the {} channels of the shared expert")
    if a.vocab_size is not None and a.kind != "mamba":
        parts["vocabulary-by-tp"] = (a.vocab_size, "the {} rows of the preset vocabulary")
    parts.update(limits_of(resolved).tensor_parts)
    return parts


def valid_tp(resolved: Resolved, tp: int) -> bool:
    """Return whether everything that is split over a tensor parallel group divides by this size."""
    return all(count % tp == 0 for count, _ in tensor_parts(resolved).values())


def tensor(resolved: Resolved) -> Iterator[Finding]:
    """Check heads, key/value heads, MLP and vocabulary against the tensor parallel size."""
    s = sizes(resolved)
    for code, (count, what) in tensor_parts(resolved).items():
        if count % s.tp:
            yield error(
                code,
                f"{shown(TP, s.tp)} does not divide {what.format(count)} of {resolved.model.name}",
                *each(TP, _tp_choices(resolved, s)),
                about=TP,
            )


def _tp_choices(resolved: Resolved, s: ParallelSizes) -> tuple[int, ...]:
    most = max(count for count, _ in tensor_parts(resolved).values())
    good = [tp for tp in divisors(most) if valid_tp(resolved, tp)]
    fits = [tp for tp in good if fits_world(resolved, math.lcm(tp * s.pp * s.cp, s.ep * s.pp))]
    return around(s.tp, fits) or around(s.tp, good)


def sequence(resolved: Resolved) -> Iterator[Finding]:
    """Check sequence parallelism and what the sequence length must be divisible by."""
    s, length = sizes(resolved), resolved.job.data.seq_length or 1
    shares = resolved.job.parallelism.sequence_parallel and s.tp > 1
    if resolved.job.parallelism.sequence_parallel and s.tp == 1:
        yield warning(
            "sequence-parallel-without-tp",
            f"{flag('sequence_parallel')} has no effect with {shown(TP, 1)}",
            fix(sequence_parallel=False),
        )
    unit = sequence_unit(s, shares)
    if shares and length % (s.tp * s.cp):
        yield error(
            "sequence-by-tp",
            f"{shown('seq_length', length)} is not a multiple of TP·CP = {s.tp}·{s.cp} = {s.tp * s.cp}",
            *each("seq_length", multiples_near(length, unit)),
            about="seq_length",
        )
    if s.cp > 1 and length % (2 * s.cp):
        yield error(
            "sequence-by-cp",
            f"{shown('seq_length', length)} is not a multiple of 2·CP = 2·{s.cp} = {2 * s.cp}",
            *each("seq_length", multiples_near(length, unit)),
            about="seq_length",
        )
    yield from _family_length(resolved, s, length, unit)


def sequence_unit(s: ParallelSizes, shares: bool) -> int:
    """Return the number that the sequence length must be a multiple of."""
    return math.lcm(2 * s.cp if s.cp > 1 else 1, s.tp * s.cp if shares else 1)


def _family_length(resolved: Resolved, s: ParallelSizes, length: int, unit: int) -> Iterator[Finding]:
    most = limits_of(resolved).most_seq_length
    if most is not None and length > most:
        yield error(
            "sequence-too-long",
            f"{shown('seq_length', length)} exceeds the {most} positions of {resolved.model.name}",
            *each("seq_length", [most // unit * unit or most]),
            about="seq_length",
        )


def context(resolved: Resolved) -> Iterator[Finding]:
    """Check that the model supports context parallelism of this size."""
    s, limits = sizes(resolved), limits_of(resolved)
    if s.cp == 1:
        return
    if limits.no_context_parallel:
        yield error(
            "cp-unsupported",
            f"{shown(CP, s.cp)} is not possible: {resolved.model.name} does not support context parallelism "
            f"because {limits.no_context_parallel}",
            *each(CP, [1]),
            about=CP,
        )
    elif not limits.valid_cp(s.tp, s.cp):
        good = [cp for cp in divisors(limits.most_cp) if limits.valid_cp(s.tp, cp)]
        choices = around(s.cp, [cp for cp in good if fits_world(resolved, s.tp * s.pp * cp)])
        yield error(
            "cp-by-heads",
            f"{shown(CP, s.cp)} does not evenly divide {limits.cp_parts} of {resolved.model.name} with "
            f"{shown(TP, s.tp)}",
            *each(CP, choices or (1,)),
            about=CP,
        )


def world(resolved: Resolved) -> Iterator[Finding]:
    """Check the number of processes against the layout of the model and of its experts."""
    s = sizes(resolved)
    gpus = len(resolved.facts.host.gpus)
    here = resolved.job.launch.is_here
    per_node = resolved.job.launch.num_gpus or 1
    if here and resolved.device == "gpu" and per_node > gpus:
        yield error(
            "more-processes-than-gpus",
            f"{shown('num_gpus', per_node)} exceeds the {counted(gpus, 'visible GPU')}",
            _on_gpus(resolved, s, gpus),
        )
        return
    if s.world % s.replica or s.world < s.replica:
        yield error(
            "world-by-layout",
            f"{counted(s.world, 'process is', 'processes are')} not a multiple of "
            f"TP·PP·CP = {s.tp}·{s.pp}·{s.cp} = {s.replica}",
            *_world_fixes(resolved, s),
        )
    elif s.world % s.expert_replica or s.world < s.expert_replica:
        yield error(
            "world-by-experts",
            f"{counted(s.world, 'process is', 'processes are')} not a multiple of "
            f"ETP·EP·PP = {s.etp}·{s.ep}·{s.pp} = {s.expert_replica}",
            *_world_fixes(resolved, s),
        )


def _world_fixes(resolved: Resolved, s: ParallelSizes) -> tuple[Fix, ...]:
    """Suggest more or fewer processes if the layout itself is valid, and a smaller layout for the given number."""
    launch = resolved.job.launch
    per_node = launch.num_gpus or 1
    fixes: list[Fix] = []
    is_valid = valid_tp(resolved, s.tp) and splits(resolved, s.pp, s.vpp if s.pp > 1 else None)
    if not is_valid:
        pass
    elif launch.executor == "slurm":
        step = s.unit // math.gcd(s.unit, per_node)
        nodes = [n for n in multiples_near(launch.num_nodes, step) if n <= 2**16]
        fixes += each("num_nodes", nodes)
    else:
        step = s.unit // math.gcd(s.unit, launch.num_nodes)
        most = len(resolved.facts.host.gpus) or 2**10
        fixes += [fix(num_gpus=n) for n in multiples_near(per_node, step) if n <= most]
    smaller = _smaller_layout(resolved, s, s.world)
    return (*fixes, *([smaller] if smaller else []))


def _on_gpus(resolved: Resolved, s: ParallelSizes, gpus: int) -> Fix:
    """Suggest as many of the visible GPUs as the layout can use, or a smaller layout on all of them."""
    usable = gpus // s.unit * s.unit
    if usable:
        return fix(num_gpus=usable, num_nodes=1)
    smaller = _smaller_layout(resolved, s, gpus)
    return fix(num_gpus=gpus, num_nodes=1, **(smaller.changes if smaller else {}))


def _smaller_layout(resolved: Resolved, s: ParallelSizes, world_size: int) -> Fix | None:
    """Suggest the largest layout for this number of processes, with no size above the given one."""
    a, limits = resolved.model.architecture, limits_of(resolved)
    of_world = divisors(world_size)
    tps = [d for d in of_world if d <= s.tp and valid_tp(resolved, d)]
    pps = [d for d in of_world if d <= s.pp and splits(resolved, d, s.vpp if d > 1 else None)]
    cps = [d for d in of_world if d <= s.cp and (d == 1 or not limits.no_context_parallel)]
    best = max(
        (
            (tp, pp, cp)
            for tp in tps
            for pp in pps
            for cp in cps
            if world_size % (tp * pp * cp) == 0 and limits.valid_cp(tp, cp)
        ),
        key=lambda sizes: (math.prod(sizes), sizes),
        default=None,
    )
    if best is None:
        return None
    tp, pp, cp = best
    experts = a.num_moe_experts or 1
    eps = [d for d in of_world if d <= s.ep and experts % d == 0 and world_size % (tp * pp * d) == 0]
    changes: dict[str, Any] = {TP: tp, PP: pp, CP: cp, EP: max(eps, default=1)}
    changes = {name: value for name, value in changes.items() if value != resolved.job.get(name)}
    if resolved.job.parallelism.expert_tensor_parallel_size is not None:
        changes["expert_tensor_parallel_size"] = None
    if pp == 1 and s.vpp is not None:
        changes["virtual_pipeline_model_parallel_size"] = None
    return fix(**changes) if changes else None
