"""Whether a job can continue an earlier training, and what of it changes there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemolaunch.check.checkpoint import differences, shape_of
from nemolaunch.check.objective import MASKING
from nemolaunch.check.resume_table import generic
from nemolaunch.check.same_model import other_than_run, sentences
from nemolaunch.check.support import each, error, fix, flag, shown, warning
from nemolaunch.data.split import grown_share
from nemolaunch.families.computed_fields import DROPOUT
from nemolaunch.findings import Finding, Fix
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.resuming import Earlier

SHOWN_FILES = 3


def rules(resolved: Resolved) -> Iterator[Finding]:
    """Check that the job is a continuation of the training it resumes from."""
    before = resolved.earlier
    if before is None:
        return
    other = differences(before.saved.architecture, shape_of(resolved))
    if other:
        yield error(
            "run-of-other-model",
            f"{before.where} is of another model: {'; '.join(other)}",
            _elsewhere(resolved),
        )
        return
    yield from _other_function(resolved, before)
    yield from _other_tokenizer(resolved, before)
    yield from _optimizer_state(resolved, before)
    yield from _other_objective(resolved, before)
    yield from _other_data(resolved, before)
    yield from _other_content(resolved, before)
    yield from _other_split(resolved, before)
    yield from _changes(resolved, before)


def _elsewhere(resolved: Resolved) -> Fix:
    launch = resolved.job.launch
    if launch.output_dir:
        return fix(output_dir=launch.output_dir.rstrip("/") + "-2")
    return fix(experiment=launch.experiment + "-2")


def _other_function(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    """Check that a model of the same shape also computes the same: positions, windows, norms, activations."""
    other = other_than_run(before.saved, resolved)
    dropped = {name: pair for name, pair in other.items() if name in DROPOUT}
    if dropped:
        yield warning(
            "run-of-other-model",
            f"{before.where} was trained with other dropout: {sentences(dropped)} from step {before.step:,} on",
            _elsewhere(resolved),
        )
    other = {name: pair for name, pair in other.items() if name not in DROPOUT}
    named = resolved.facts.resume
    # by `checkpoint.start`, which knows the whole configuration
    reported = named is not None and named.path == before.checkpoint and bool(named.fields)
    if other and not reported:
        yield error(
            "run-of-other-model",
            f"{before.where} is of a model of the same shape that computes something else: {sentences(other)}",
            _elsewhere(resolved),
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _other_tokenizer(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    tokenizer = resolved.facts.tokenizer
    if before.saved.tokens_digest is None or tokenizer is None or tokenizer.tokens_digest is None:
        return
    if tokenizer.tokens_digest != before.saved.tokens_digest:
        yield error(
            "run-of-other-tokenizer",
            f"{shown('hf_model_id', tokenizer.source)} is not the tokenizer of {before.where}: the same ids mean other "
            "tokens",
            *each(
                "hf_model_id",
                [name] if (name := before.saved.values.get("hf_model_id")) != tokenizer.source else [],
            ),
            _elsewhere(resolved),
        )


# Saved optimizer state cannot be loaded under a different value of these fields: the sharded layouts differ
OPTIMIZER_LAYOUT = ("disable_dist_optim", "expert_model_parallel_size", "optimizer")


def _optimizer_state(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    for name in OPTIMIZER_LAYOUT:
        had = before.saved.values.get(name)
        if had is not None and had != resolved.job.get(name):
            yield error(
                "run-of-other-optimizer-layout",
                f"{before.where} was saved with {shown(name, had)}, so its optimizer state cannot be loaded with "
                f"{resolved.job.get(name)}",
                *each(name, [had]),
                _elsewhere(resolved),
            )


def _other_objective(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    """Check that the objective stays the same; masking settings may change when a run resumes."""
    job, values = resolved.job.objective, before.saved.values
    trained = values.get("objective", job.objective)
    if trained != job.objective:
        yield error(
            "run-of-other-objective",
            f"{shown('objective', job.objective)} differs from {before.where}, which was trained with {trained}",
            *each("objective", [trained]),
            _elsewhere(resolved),
        )
        return
    changed = [name for name in MASKING if name in values and values[name] != resolved.job.get(name)]
    if job.objective == "mlm" and changed:
        was = ", ".join(f"{flag(name)} {values[name]}" for name in changed)
        yield warning(
            "run-of-other-objective",
            f"{before.where} was trained with {was}; from step {before.step} on, samples are masked differently",
            fix(**{name: values[name] for name in changed}),
            _elsewhere(resolved),
        )


def _other_data(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    """Report what a changed blend means for a resumed run, which keeps its position in the order of samples.

    Megatron rebuilds the order and starts at the number of consumed samples (`MegatronPretrainingSampler`), as if
    everything before had been read in the new order.
    """
    sizes = {f.prefix: float(f.split_tokens[0]) for f in resolved.facts.data}
    old, now = _by_prefix(before.saved.blend, sizes), _by_prefix(resolved.blend, sizes)
    if not old or not now or old == now:
        return
    seen = before.samples
    if seen is None:
        seen = resolved.batch_sizes.samples(before.step)
    sentences = []
    for prefix in dict.fromkeys([*old, *now]):
        had, has = old.get(prefix), now.get(prefix)
        if prefix not in old or prefix not in now:
            sentences.append(f"{prefix} is {'no longer read' if prefix in old else 'new'}")
        elif had is not None and has is not None and abs(has - had) * seen >= 1:
            what = "skipped" if has > had else "read again"
            sentences.append(f"about {abs(has - had) * seen:,.0f} samples of {prefix} are {what}")
    if sentences:
        yield warning(
            "run-of-other-data",
            f"{before.where} was trained on different data; it resumes at step {before.step} with sample {seen:,} of "
            f"the new order: {'; '.join(sentences)}",
            _elsewhere(resolved),
        )


def _other_content(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    """Report data files that have the names of those trained on so far, but other content."""
    other = [
        f.prefix
        for f in resolved.facts.data
        if f.digest and before.saved.digests.get(f.prefix, f.digest) != f.digest
    ]
    if other:
        more = f" and {len(other) - SHOWN_FILES} more" if len(other) > SHOWN_FILES else ""
        yield warning(
            "run-of-other-data",
            f"{', '.join(other[:SHOWN_FILES])}{more}: the content is not that which {before.where} was trained on; "
            f"from step {before.step:,} on, samples come in the order of the new data",
            _elsewhere(resolved),
        )


def _by_prefix(
    pairs: tuple[tuple[float | None, str], ...], sizes: dict[str, float]
) -> dict[str, float | None]:
    """Return the share of each prefix, by size where there are no weights; None where the size is unknown."""
    weights = {prefix: sizes.get(prefix) if weight is None else weight for weight, prefix in pairs}
    known = [w for w in weights.values() if w is not None]
    total = sum(known) if len(known) == len(weights) else 0.0
    return {prefix: w / total if w is not None and total else None for prefix, w in weights.items()}


def _other_split(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    """Check that no document changes from validation to training, or the other way round."""
    had, now = before.saved.values.get("split"), resolved.job.data.split
    if not had or not now or had == now or resolved.facts.stream is not None:
        return
    if grown_share(had, now):
        yield error(
            "run-of-other-split",
            f"{shown('split', now)} would train on documents that {before.where} held out for validation with "
            f"{shown('split', had)}; its validation losses could no longer be compared (--force run-of-other-split "
            "does it anyway)",
            *each("split", [had]),
            _elsewhere(resolved),
        )
    else:
        yield warning(
            "run-of-other-split",
            f"{shown('split', now)} validates on documents that {before.where} has trained on with "
            f"{shown('split', had)}, and starts a new order of samples at step {before.step:,}",
            *each("split", [had]),
            _elsewhere(resolved),
        )


def _changes(resolved: Resolved, before: Earlier) -> Iterator[Finding]:
    """Report values whose effect needs no more than the sentence of the table."""
    for name, row in generic().items():
        now, had = resolved.job.get(name), before.saved.values.get(name)
        if name not in before.saved.values or _plain(now) == _plain(had) or not _applies(resolved, name):
            continue
        yield warning(
            "resume-changes",
            f"{_value(name, now)} {row.text}; {before.where} had {_value(name, had)}",
            fix(**{name: tuple(had) if isinstance(had, list) else had}),
            _elsewhere(resolved),
        )


def _applies(resolved: Resolved, name: str) -> bool:
    if spec_of(name).part == "stream":
        return resolved.stream is not None
    return name != "fp8_recipe" or resolved.job.batch.fp8


def _value(name: str, value: Any) -> str:
    """Return a flag with its value; `no FLAG` where it is off."""
    if value in (None, False, (), []):
        return f"no {flag(name)}"
    return (
        flag(name)
        if value is True
        else shown(name, " ".join(map(str, value)) if isinstance(value, (tuple, list)) else value)
    )
