"""The nodes and GPUs that a job asks of a partition, and the form of `--gres`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nemolaunch.catalogue import gpu_seen
from nemolaunch.check.support import each, error, fix, flag, shown, warning
from nemolaunch.facts.gres import parse_gres
from nemolaunch.facts.partitions import Partition, usable
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.cluster import has, most_per_node, num_nodes_with, requested


def in_partition(resolved: Resolved, chosen: Partition) -> Iterator[Finding]:
    """Check number of nodes and GPUs per node against the nodes of a partition."""
    launch = resolved.job.launch
    gpus = launch.num_gpus or 0 if _counts_gpus(resolved) else 0
    most = max((has(kind, launch) for kind in chosen.kinds), default=0)
    if gpus > most:
        yield _too_many_gpus(resolved, chosen, gpus, most)
        gpus = 0
    yield from _num_nodes(resolved, chosen, gpus)


def _counts_gpus(resolved: Resolved) -> bool:
    """Return whether Slurm hands out the job's GPUs: some clusters do not manage them."""
    managed = any(kind.gpus() or kind.slices() for p in resolved.facts.partitions for kind in p.kinds)
    return resolved.device == "gpu" and resolved.job.launch.gres != "none" and managed


def _too_many_gpus(resolved: Resolved, chosen: Partition, gpus: int, most: int) -> Finding:
    launch = resolved.job.launch
    if most:
        sort = " ".join(filter(None, (*(g.type for g in requested(launch)), "GPUs")))
        return error(
            "slurm-gpus",
            f"{shown('num_gpus', gpus)} exceeds the {most} {sort} of each node in partition {chosen.name}",
            *_with_gpus(resolved, most),
            about="num_gpus",
        )
    types = [g.type for g in requested(launch) if g.type]
    slices = max((kind.slices() for kind in chosen.kinds), default=0)
    if types and chosen.gpus:
        near = difflib.get_close_matches(types[0].lower(), [name.lower() for name in chosen.gpus], n=1)
        names = [name for name in chosen.gpus if name.lower() in near] or list(chosen.gpus)
        return error(
            "slurm-gpus",
            f"{shown('gres', launch.gres)}: partition {chosen.name} has no GPUs of type {types[0]}, only "
            f"{', '.join(chosen.gpus)}",
            *each("gres", [f"gpu:{name}:{gpus}" for name in names]),
            about="gres",
        )
    why = f"only {slices} slices of GPUs (MIG) on a node" if slices else "no GPUs"
    others = [p.name for p in resolved.facts.partitions if p.up and most_per_node(p, launch) >= gpus]
    return error(
        "slurm-gpus",
        f"{shown('partition', chosen.name)} has {why}, and the job needs {gpus} GPUs on each node",
        *each("partition", others[:2]),
        about="partition",
    )


def _with_gpus(resolved: Resolved, count: int) -> tuple[Fix, ...]:
    """Return the fix that asks for so many GPUs on each node, in `--gres` too if it is given."""
    launch = resolved.job.launch
    if launch.gres is None:
        return each("num_gpus", [count])
    return (fix(num_gpus=count, gres=_with_count(launch.gres, count)),)


def _with_count(gres: str, count: int) -> str:
    """Return resources with another number of GPUs: `gpu:h100:4` → `gpu:h100:8`."""
    words = []
    for one in parse_gres(gres) or ():
        number = count if one.name == "gpu" else one.count
        words.append(":".join(filter(None, (one.name, one.type, str(number)))))
    return ",".join(words)


def _num_nodes(resolved: Resolved, chosen: Partition, gpus: int) -> Iterator[Finding]:
    """Check the number of nodes against those that have enough GPUs, and against the partition's limits."""
    launch = resolved.job.launch
    wanted = launch.num_nodes
    there = num_nodes_with(chosen, launch, gpus)
    most = min(there, chosen.most_nodes or there)
    can = usable(tuple(kind for kind in chosen.kinds if has(kind, launch) >= gpus))
    if wanted > most:
        yield error("slurm-nodes", _exceeds(resolved, chosen, gpus, most), *_fewer(resolved, chosen, most))
    elif wanted < chosen.least_nodes:
        yield error(
            "slurm-nodes",
            f"{shown('num_nodes', wanted)} is below the {chosen.least_nodes} nodes that a job in partition "
            f"{chosen.name} must have",
            *each("num_nodes", [chosen.least_nodes]),
            about="num_nodes",
        )
    elif can is not None and wanted > can:
        with_gpus = f" with {gpus} GPUs" if there < chosen.num_nodes else ""
        yield warning(
            "slurm-nodes-down",
            f"{shown('num_nodes', wanted)} exceeds the {can} nodes of partition {chosen.name}{with_gpus} that are up "
            f"({there} in all), so the job waits until more are up",
            *each("num_nodes", [can] if can else []),
            about="num_nodes",
        )


def _exceeds(resolved: Resolved, chosen: Partition, gpus: int, most: int) -> str:
    launch = resolved.job.launch
    wanted = shown("num_nodes", launch.num_nodes)
    if most == chosen.num_nodes:
        return f"{wanted} exceeds the {most} nodes of partition {chosen.name}"
    if most == chosen.most_nodes:
        return f"{wanted} exceeds the limit of {most} nodes per job in partition {chosen.name}"
    fewer = sorted({n for kind in chosen.kinds if (n := has(kind, launch)) < gpus})
    others = " or ".join(str(n) if n else "none" for n in fewer)
    return (
        f"{wanted} with {shown('num_gpus', gpus)} exceeds the {most} nodes of partition {chosen.name} that have {gpus} "
        f"GPUs; the other {chosen.num_nodes - most} have {others}"
    )


def _fewer(resolved: Resolved, chosen: Partition, most: int) -> tuple[Fix, ...]:
    """Return fewer nodes, or fewer GPUs on each of as many."""
    gpus = most_per_node(chosen, resolved.job.launch)
    within = resolved.job.launch.num_nodes <= (chosen.most_nodes or resolved.job.launch.num_nodes)
    fixes = each("num_nodes", [most] if most else [])
    return (*fixes, *(_with_gpus(resolved, gpus) if gpus and within else ()))


def gres(resolved: Resolved) -> Iterator[Finding]:
    """Check the form of `--gres`, and that it requests as many GPUs of each node as the job has ranks there."""
    launch = resolved.job.launch
    if launch.executor != "slurm" or launch.gres in (None, "none") or resolved.device != "gpu":
        return
    found = parse_gres(str(launch.gres))
    names = {g.name for p in resolved.facts.partitions for kind in p.kinds for g in kind.gres}
    unknown = [g.name for g in found or () if g.name not in names | {"gpu"}] if names else []
    named_gpu = [g for g in found or () if g.name != "gpu" and gpu_seen(g.name) is not None]
    if not found or named_gpu or unknown:
        right = [f"gpu:{named_gpu[0].name.lower()}:{launch.num_gpus}"] if named_gpu else []
        known = f"; this cluster has {', '.join(sorted(names))}" if names else ""
        yield error(
            "slurm-gres-form",
            f"{flag('gres')} {launch.gres!r} is not in Slurm's form NAME[:TYPE]:COUNT, e.g. gpu:h100:8{known}",
            *each("gres", right or [f"gpu:{launch.num_gpus}"]),
            about="gres",
        )
        return
    yield from _gres_count(resolved)


def _gres_count(resolved: Resolved) -> Iterator[Finding]:
    launch = resolved.job.launch
    asked = requested(launch)
    count, wanted = sum(g.count for g in asked), launch.num_gpus
    slices = [g.type for g in asked if g.is_slice]
    if slices and resolved.world_size > 1:
        yield error(
            "slurm-slices",
            f"{shown('gres', launch.gres)} requests slices of GPUs (MIG), which NCCL does not connect, and the job has "
            f"{resolved.world_size} ranks",
            fix(gres=f"gpu:{wanted}"),
            fix(gres=f"gpu:{slices[0]}:1", num_gpus=1, num_nodes=1),
            about="gres",
        )
    elif count != wanted:
        gives = f"requests {count} GPU{'s' * (count != 1)}" if count else "requests no GPUs"
        both = [
            fix(gres=_with_count(launch.gres or "", wanted or 1) if count else f"{launch.gres},gpu:{wanted}")
        ]
        both += each("num_gpus", [count] if count else [])
        yield error(
            "slurm-gres",
            f"{shown('gres', launch.gres)} {gives} on each node, and {shown('num_gpus', wanted)} starts {wanted} ranks "
            "there",
            *both,
            about="gres",
        )
