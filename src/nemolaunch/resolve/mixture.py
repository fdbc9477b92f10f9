"""The mixture of a job's data sources: Megatron's weights, and how much the run reads of each source."""

from __future__ import annotations

import math
from collections import Counter

from nemolaunch.arithmetic.ramp import BatchSizes
from nemolaunch.data import blend
from nemolaunch.facts import Facts
from nemolaunch.job import Job


def weighted(job: Job, facts: Facts, epoch: int, batches: BatchSizes) -> tuple[tuple[float | None, str], ...]:
    """Return (weight or None, prefix) of each file: as given, else None within one epoch, else by size.

    Megatron reads unweighted files for exactly one epoch and fails after it.
    """
    files = facts.data
    if len(files) < 2:
        return tuple((None, f.prefix) for f in files)
    if any(f.weight is not None for f in files):
        return tuple(zip(_weights(job, facts), (f.prefix for f in files), strict=True))
    wanted = batches.samples(job.batch.max_steps or 0)
    if wanted <= epoch:
        return tuple((None, f.prefix) for f in files)
    return tuple((float(f.split_tokens[0]), f.prefix) for f in files)


def _weights(job: Job, facts: Facts) -> list[float | None]:
    """Return the weight of each file: the source's weight in tokens, split among its files by size."""
    sources, files_of = _sources(facts), Counter(f.source for f in facts.data)
    of_source = [weight for weight, _ in facts.asked.sources]
    if job.data.blend_by == "rows":
        of_source = list(blend.token_shares([w or 0.0 for w in of_source], sources, "rows"))
    weights: list[float | None] = []
    for f in facts.data:
        weight = of_source[f.source]
        if weight is not None and files_of[f.source] > 1:
            weight *= f.split_tokens[0] / max(1, sources[f.source].epoch_tokens)
        weights.append(weight)
    return weights


def _sources(facts: Facts) -> list[blend.BlendSource]:
    """Return the size of each source, summed over its files."""
    totals = [[0, 0, 0] for _ in facts.asked.sources]
    for f in facts.data:
        for i, count in enumerate((f.num_tokens, f.num_documents, f.split_tokens[0])):
            totals[f.source][i] += count
    return [
        blend.BlendSource(path=path, tokens=tokens, documents=documents, epoch_tokens=epoch_tokens)
        for (_, path), (tokens, documents, epoch_tokens) in zip(facts.asked.sources, totals, strict=True)
    ]


def ledger(job: Job, facts: Facts, batches: BatchSizes) -> tuple[blend.Share, ...]:
    """Return what the run reads of each source; empty for a single source or invalid weights.

    Without weights, each source is read in proportion to its size.
    """
    sources = _sources(facts)
    weights = [weight for weight, _ in facts.asked.sources]
    given = [w for w in weights if w is not None and math.isfinite(w) and w > 0]
    if len(sources) < 2 or len(given) not in (0, len(weights)) or not all(s.epoch_tokens for s in sources):
        return ()
    shares = blend.token_shares(
        given or [float(s.epoch_tokens) for s in sources],
        sources,
        job.data.blend_by if given and job.data.blend_by else "tokens",
    )
    samples = batches.samples(job.batch.max_steps or 0)
    return tuple(blend.ledger(shares, sources, max(0, samples), max(1, job.data.seq_length or 1)))
