"""Slurm: whether it responds, which partitions and accounts are available, and whether it runs containers."""

from __future__ import annotations

from collections.abc import Iterator
from shutil import which

from nemolaunch.doctor.verdict import Verdict, bad, good, note, warning
from nemolaunch.facts.cluster import look_at_cluster
from nemolaunch.facts.partitions import Partition
from nemolaunch.system.commands import answers
from nemolaunch.system.quantities import counted

TIMEOUT_S = 10


def look() -> Iterator[Verdict]:
    """Check what Slurm's commands report."""
    if which("sbatch") is None:
        yield note("slurm", "sbatch is not installed: this machine cannot submit jobs to Slurm")
        return
    cluster = look_at_cluster()
    if not cluster.partitions:
        yield bad("slurm", "sinfo does not respond: the controller cannot be reached", "scontrol ping")
        return
    yield from map(partition_verdict, cluster.partitions)
    if cluster.accounting.accounts:
        yield good("slurm", "accounts available to you with -A: " + ", ".join(cluster.accounting.accounts))
    help_text, queue = answers(["srun", "--help"], ["squeue", "--noheader", "--me"], timeout_s=TIMEOUT_S)
    if "--container-image" in (help_text or ""):
        yield good("slurm", "srun can run containers (Pyxis)")
    else:
        yield warning(
            "slurm",
            "srun has no option --container-image: Pyxis is not installed",
            "use --container-image none to run in this environment",
        )
    if queue and queue.strip():
        yield note("slurm", f"you have {counted(len(queue.splitlines()), 'job')} in the queue")


def partition_verdict(partition: Partition) -> Verdict:
    """Return what a partition has, and whether it runs jobs."""
    nodes = partition.num_nodes if partition.usable_nodes is None else partition.usable_nodes
    text = f"partition {partition.name}: {nodes} of {partition.num_nodes} nodes up{_gpus_of(partition)}"
    if partition.up and nodes:
        return good("slurm", text)
    return warning(
        "slurm", text, f"scontrol show partition {partition.name}, or use another partition with -P"
    )


def _gpus_of(partition: Partition) -> str:
    """Return the number of GPUs of its nodes, for each kind of node if they differ."""
    counts: dict[int, int] = {}
    for kind in partition.kinds:
        counts[kind.gpus()] = counts.get(kind.gpus(), 0) + kind.num_nodes
    if set(counts) == {0}:
        return ", MIG slices only" if any(kind.slices() for kind in partition.kinds) else ""
    if len(counts) == 1:
        return f", {next(iter(counts))} GPUs each"
    return ", GPUs each: " + ", ".join(
        f"{gpus} on {nodes}" for gpus, nodes in sorted(counts.items(), reverse=True)
    )
