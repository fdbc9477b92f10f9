"""Streams of rows: sources, weights, length, readers, and the order that a resumed run must keep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from nemolaunch.check.support import each, error, fix, flag, no_effect, note, shown, warning
from nemolaunch.data.blend import as_words, is_total
from nemolaunch.data.stream_budget import busy_workers, tokens_to_end
from nemolaunch.data.stream_spec import StreamSource, StreamSpec
from nemolaunch.data.text_files import ENDINGS
from nemolaunch.findings import Finding, Fix
from nemolaunch.job import PARTS, specs
from nemolaunch.resolve import Resolved
from nemolaunch.system.quantities import counted

# Fields that a run must keep to resume with the very next row: changing one changes the rows or their order
ORDER_FIELDS = ("stream_readers", "shard_shuffle", "seed", "split", "text_key")
# Common names of text columns, the most common first
TEXT_NAMES = ("text", "content", "raw_content", "body", "document", "article", "code", "markdown")


def sources(resolved: Resolved) -> Iterator[Finding]:
    """Check the sources to read."""
    stream = resolved.stream
    if stream is None:
        yield from _unused(resolved)
        return
    if not resolved.job.data.dataset_dir:
        yield error("data-missing", f"{flag('dataset_dir')} is not given")
    elif stream.error:
        yield error("blend-unreadable", f"{flag('dataset_dir')}: {stream.error}")
    family = resolved.model.recipe.model_class
    if family in ("T5Model", "HyenaModel"):
        yield error(
            "stream-unsupported",
            f"{shown('data_mode', 'stream')} is not possible: {resolved.model.name} is a {family}, which builds its "
            "samples differently",
            fix(data_mode="indexed"),
        )
    for place, (source, seen) in enumerate(zip(stream.sources, resolved.facts.sources, strict=False)):
        if seen.error:
            instead = [_with(resolved, place, seen.instead)] if seen.instead and _is_words(resolved) else []
            yield error(
                "stream-source", f"{flag('dataset_dir')}: source {source.name}: {seen.error}", *instead
            )
        elif seen.columns is not None and source.text_key not in seen.columns:
            yield from _column(resolved, source, seen.columns, seen.likely_key)
        if seen.not_read:
            yield note(
                "stream-files-not-read",
                f"source {source.name}: {seen.not_read} not read; files of a folder are read if their names end in "
                f"{ENDINGS}, a .json only if it is named",
            )
        readers = resolved.job.stream.stream_readers or 1
        if seen.num_packed and seen.num_files < readers:
            yield note(
                "stream-few-files",
                f"source {source.name} has {seen.num_files} files, {seen.num_packed} of them compressed, for "
                f"{readers} readers: each reader decompresses whole files for a share of their rows",
            )
    yield from _weights(resolved, stream)


def _unused(resolved: Resolved) -> Iterator[Finding]:
    """Report stream flags that are set although the data are indexed."""
    given = [
        spec.name for spec in specs() if spec.part == "stream" and resolved.job.get(spec.name) != spec.default
    ]
    if given:
        yield warning(
            "stream-flags",
            f"{no_effect(given)} without {shown('data_mode', 'stream')}",
            fix(**{name: getattr(PARTS["stream"](), name) for name in given}),
            fix(data_mode="stream"),
        )


def _is_words(resolved: Resolved) -> bool:
    """Return whether the sources are given on the command line rather than in a file."""
    return not any(word.endswith((".yaml", ".yml")) for word in resolved.job.data.dataset_dir)


def _with(resolved: Resolved, place: int, path: str) -> Fix:
    """Return the fix that replaces the path of that source."""
    found = [s.paths[0] for s in resolved.stream.sources] if resolved.stream else []
    if len(found) == 1:
        return fix(dataset_dir=(path,))
    weights = [s.weight for s in resolved.stream.sources] if resolved.stream else []
    return fix(
        dataset_dir=as_words(list(zip(weights, [*found[:place], path, *found[place + 1 :]], strict=True)))
    )


def _column(
    resolved: Resolved, source: StreamSource, columns: tuple[str, ...], likely_key: str | None
) -> Iterator[Finding]:
    likely = [name for name in TEXT_NAMES if name in columns]
    likely = likely or ([likely_key] if likely_key else [])
    likely = likely or [name for name in columns if name.rpartition(".")[2] in TEXT_NAMES]
    by_flag = source.text_key == resolved.job.stream.text_key
    yield error(
        "stream-column",
        f"source {source.name} has no column {source.text_key!r}; the columns of its first file are "
        f"{', '.join(columns[:12])}"
        + (f"; the key {likely_key!r} holds text in all lines" if likely_key else ""),
        *(each("text_key", likely[:2]) if by_flag else ()),
    )


def _weights(resolved: Resolved, stream: StreamSpec) -> Iterator[Finding]:
    """Check that weights are positive and sum to a whole."""
    if len(stream.sources) < 2:
        return
    valid = [
        (s.weight, s.paths[0]) for s in stream.sources if math.isfinite(s.weight) and s.weight > 0 and s.paths
    ]
    fixes = [fix(dataset_dir=as_words(valid))] if valid and _is_words(resolved) else []
    bad = next((s for s in stream.sources if not math.isfinite(s.weight) or s.weight <= 0), None)
    if bad is not None:
        yield error(
            "blend-weights",
            f"{flag('dataset_dir')}: the weight of {bad.name} is {bad.weight:g}; it must be above 0",
            *fixes,
        )
        return
    total = math.fsum(s.weight for s in stream.sources)
    if not is_total(total):
        yield error(
            "blend-total", f"{flag('dataset_dir')}: the weights sum to {total:g} instead of 1 or 100", *fixes
        )


def amount(resolved: Resolved) -> Iterator[Finding]:
    """Check that the run's length is known, and that ranks can share the readers."""
    stream, job = resolved.stream, resolved.job
    if stream is None or stream.error:
        return
    strategy = job.stream.stopping_strategy
    if not job.batch.max_steps:
        whole = tokens_to_end(stream, job.data.blend_by or "tokens", strategy)
        reason = "the length of a stream is unknown"
        if strategy != "fixed-tokens":
            reason = (
                f"{shown('stopping_strategy', strategy)} cannot compute the length from the sources' `tokens`"
            )
        yield error(
            "stream-length",
            f"the run's length is not given, but the learning rate schedule needs it ({flag('max_tokens')} or "
            f"{flag('max_steps')}): {reason}",
            *([fix(max_tokens=whole)] if whole else [fix(max_steps=1000)]),
        )
    if resolved.data_parallel_size:
        yield from _readers(resolved)


def _readers(resolved: Resolved) -> Iterator[Finding]:
    job, ranks = resolved.job, resolved.data_parallel_size
    batch, readers = job.batch.global_batch_size, job.stream.stream_readers or 0
    if readers < 1 or batch % ranks:
        return  # reported elsewhere
    if readers % ranks or batch % readers:
        good = [n for n in range(ranks, batch + 1, ranks) if batch % n == 0]
        near = sorted(good, key=lambda n: abs(n - readers))[:2]
        kept = resolved.origins.get("stream_readers") == "the run so far"
        more = "; the run started with this number" if kept else ""
        yield error(
            "stream-readers",
            f"{shown('stream_readers', readers)} must be a multiple of the data parallel size {ranks} and divide "
            f"{shown('global_batch_size', batch)}{more}",
            *([] if kept else each("stream_readers", sorted(near))),
            *([fix(data_resume="fresh", stream_readers=near[0])] if kept and near else []),
            about="" if kept else "stream_readers",
        )
        return
    workers = job.data.num_workers
    busy = busy_workers(workers, readers // ranks)
    if busy < workers and resolved.origins.get("num_workers") in ("flag", None):
        yield note(
            "stream-workers",
            f"{shown('num_workers', workers)} processes cannot share the {counted(readers // ranks, 'reader')} of "
            f"a rank evenly: {busy} of them work, the others stay idle",
            *each("num_workers", [busy]),
            about="num_workers",
        )


def resumed(resolved: Resolved) -> Iterator[Finding]:
    """Check that the job can resume an earlier run in the folder."""
    run, job = resolved.facts.run, resolved.job
    before: dict[str, Any] = run.saved.values
    if run.last_checkpoint is None or job.checkpoint.resume != "auto" or not before:
        return
    mode = before.get("data_mode", "indexed")
    if mode != job.data.data_mode:
        yield error(
            "run-of-other-data-mode",
            f"{shown('data_mode', job.data.data_mode)} differs from the run in {run.folder}, which uses "
            f"{shown('data_mode', mode)}",
            *each("data_mode", [mode]),
        )
        return
    if resolved.stream is None or job.stream.data_resume == "fresh":
        return
    for name in ORDER_FIELDS:
        if name in before and before[name] != job.get(name):
            yield error(
                "stream-changed",
                f"{shown(name, job.get(name))} changes the order of rows of the run in {run.folder}, which was created "
                f"with {shown(name, before[name])}",
                *each(name, [before[name]]),
                fix(data_resume="fresh"),
            )
