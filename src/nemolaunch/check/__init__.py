"""All rules that a job must satisfy, checked before anything starts.

Each rule is a function of the resolved job that yields findings; each finding has a code listed in `codes.RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nemolaunch.check import (
    attention,
    backend,
    batch,
    checkpoint,
    container,
    container_engine,
    data,
    device,
    documents,
    engine,
    environment,
    evaluation,
    experts,
    gemma4,
    graphs,
    index_cache,
    model,
    names,
    objective,
    offload,
    optimizer,
    overlap,
    parallel,
    pipeline,
    precision,
    preflight,
    preset,
    profile,
    ramp,
    ranges,
    recompute,
    recompute_modules,
    resume,
    sbatch,
    schedule,
    secrets,
    settings,
    site_setup,
    slurm,
    slurm_limits,
    slurm_nodes,
    slurm_shell,
    software,
    stream,
    upload,
    validation,
    warm,
)
from nemolaunch.check.codes import RULES
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

__all__ = ["RULES", "check", "check_cluster", "check_nodes"]

Rule = Callable[[Resolved], Iterator[Finding]]

ALWAYS: tuple[Rule, ...] = (
    ranges.rules,
    names.rules,
    model.rules,
    device.rules,
    backend.rules,
    data.files,
    index_cache.old,
    data.split,
    data.weights,
    validation.names,
    validation.files,
    validation.use,
    stream.sources,
    stream.resumed,
    data.tokenizer,
    data.tokens,
    objective.rules,
    documents.ends,
    documents.padding,
    checkpoint.start,
    checkpoint.run_folder,
    upload.rules,
    resume.rules,
    slurm.rules,
    slurm_nodes.gres,
    slurm_limits.qos,
    slurm_shell.rules,
    container.rules,
    container_engine.rules,
    software.rules,
    site_setup.rules,
    sbatch.rules,
    environment.rules,
    secrets.rules,
    optimizer.rules,
    optimizer.epsilon,
    schedule.rates,
    schedule.phases,
    schedule.resumed,
    preset.rules,
    profile.rules,
    evaluation.rules,
    warm.rules,
    preflight.rules,
    settings.rules,
)
# These calculate with sizes, so they run only if `ranges` has found all sizes valid.
WITH_SIZES: tuple[Rule, ...] = (
    parallel.tensor,
    parallel.sequence,
    parallel.context,
    pipeline.stages,
    pipeline.virtual,
    experts.rules,
    parallel.world,
    batch.rules,
    documents.rules,
    ramp.rules,
    recompute.rules,
    recompute_modules.rules,
    gemma4.rules,
    offload.activations,
    offload.optimizer,
    precision.rules,
    attention.kernels,
    attention.switches,
    graphs.rules,
    overlap.tensor,
    overlap.data,
    engine.rules,
    data.amount,
    data.validation,
    validation.amount,
    stream.amount,
)


def check(resolved: Resolved) -> list[Finding]:
    """Return all findings of a resolved job, in the order in which they are best fixed."""
    rules = ALWAYS + (WITH_SIZES if ranges.sizes_are_valid(resolved) else ())
    return [finding for rule in rules for finding in rule(resolved)]


CLUSTER: tuple[Rule, ...] = (
    slurm.rules,
    slurm_nodes.gres,
    slurm_limits.qos,
    container.rules,
    container_engine.rules,
    site_setup.rules,
    sbatch.rules,
    environment.rules,
)


def check_cluster(resolved: Resolved) -> list[Finding]:
    """Return the findings about the cluster alone, whatever the job trains."""
    return [finding for rule in CLUSTER for finding in rule(resolved)]


def check_nodes(resolved: Resolved) -> list[Finding]:
    """Return the findings about a job that only measures nodes."""
    return [finding for rule in (ranges.rules, names.rules, *CLUSTER) for finding in rule(resolved)]
