"""Validation sets: whether they exist, are what they claim to be, and are not trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator

from nemolaunch.check.support import each, error, fix, flag, no_effect, note, shown, warning
from nemolaunch.data.blend import as_words
from nemolaunch.data.stream_budget import validation_share
from nemolaunch.data.validation_sets import HELD_OUT, NAME, corpus_of, free_name, named_path
from nemolaunch.facts.data_files import DataFile
from nemolaunch.facts.validation_files import ValidationFiles
from nemolaunch.findings import Finding, Fix
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.validation import validation_set

SHOWN = 5


def names(resolved: Resolved) -> Iterator[Finding]:
    """Check that the words are NAME=PATH, with distinct names."""
    taken: set[str] = set()
    for place, word in enumerate(resolved.job.data.validation_data):
        name, path = named_path(word)
        wanted = name or os.path.basename(path.rstrip("/")).removesuffix("_document") or "validation"
        fixes = each("validation_data", [_words(resolved, place, f"{free_name(wanted, taken)}={path}")])
        given = shown("validation_data", word)
        if not name or not path:
            yield error("validation-data-name", f"{given} is not NAME=PATH", *fixes, about="validation_data")
        elif not NAME.fullmatch(name):
            problem = (
                f"{given}: the name {name!r} has other characters than letters, digits, '.', '_' and '-'"
            )
            yield error("validation-data-name", problem, *fixes, about="validation_data")
        elif name in taken:
            problem = f"{given}: there is already a validation set {name!r}"
            yield error("validation-data-name", problem, *fixes, about="validation_data")
        elif name == HELD_OUT:
            fixes = each("validation_data", [_words(resolved, place, f"my-{name}={path}")])
            problem = f"{given}: {name!r} is the name of the documents that {flag('split')} holds out"
            yield error("validation-data-name", problem, *fixes, about="validation_data")
        taken.add(name)


def _words(resolved: Resolved, place: int, *instead: str) -> tuple[str, ...]:
    """Return the words of the flag with one of them replaced."""
    words = resolved.job.data.validation_data
    return (*words[:place], *instead, *words[place + 1 :])


def files(resolved: Resolved) -> Iterator[Finding]:
    """Check the files of each set, and what is done with files that were found or look held out."""
    for place, seen in enumerate(resolved.facts.validation):
        yield from _unusable(resolved, place, seen)
        if seen.trained_on:
            yield error(
                "validation-data-trained-on",
                f"{_title(seen)}: {_some(seen.trained_on)} is training data, too",
                *each("validation_data", [] if seen.found else [_words(resolved, place)]),
            )
        yield from _tokens(resolved, seen)
    found = [seen for seen in resolved.facts.validation if seen.found]
    for seen in found[:SHOWN]:
        paths = [file.prefix for file in seen.files]
        yield note(
            "validation-data-found",
            f"{_some(paths)} holds documents that `nemolaunch tokenize` held out: it is the validation set "
            f"{seen.name}, and is not trained on",
        )
    if len(found) > SHOWN:
        more = f"{len(found) - SHOWN} more validation sets were found beside the training data"
        yield note("validation-data-found", more)
    for file in resolved.facts.data:
        yield from _looks_held_out(resolved, file)


def _title(seen: ValidationFiles) -> str:
    """Return how a finding names a set: by its flag, or by the folder that it was found in."""
    if seen.found:
        return f"validation set {seen.name} in {seen.path}"
    return shown("validation_data", f"{seen.name}={seen.path}" if seen.name else seen.path)


def _some(paths: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}"


def _unusable(resolved: Resolved, place: int, seen: ValidationFiles) -> Iterator[Finding]:
    """Report files that are missing, incomplete or empty."""
    for file in [f for f in seen.files if f.error or f.num_tokens == 0][:SHOWN]:
        words = _words(resolved, place, f"{seen.name}={file.instead}") if seen.name and file.instead else None
        yield error(
            "validation-data-unreadable",
            f"{_title(seen)}: {file.error or f'{file.prefix} contains no tokens'}",
            *each("validation_data", [words] if words else []),
        )


def _tokens(resolved: Resolved, seen: ValidationFiles) -> Iterator[Finding]:
    """Check that a set was made with the tokenizer of the run."""
    facts = resolved.facts
    tokenizer = facts.tokenizer
    training = {digest: file.prefix for file in facts.data if (digest := _digest(file))}
    if not training and tokenizer and tokenizer.digest:
        training = {tokenizer.digest: tokenizer.source}
    other = next((f for f in seen.files if _digest(f) and training and _digest(f) not in training), None)
    largest = max((f.max_token_id for f in seen.files if f.max_token_id is not None), default=None)
    if other is not None:
        made_by = (other.tokenizer or {}).get("name")
        yield error(
            "validation-data-tokenizer",
            f"{_title(seen)}: {other.prefix} was made with the tokenizer {made_by}, which is not that of "
            f"{next(iter(training.values()))}",
        )
    elif tokenizer and tokenizer.vocab_size and largest is not None and largest >= tokenizer.vocab_size:
        yield error(
            "validation-data-tokenizer",
            f"{_title(seen)} contains token ids up to {largest} or more, but the tokenizer has only "
            f"{tokenizer.vocab_size} tokens",
        )


def _digest(file: DataFile) -> str | None:
    found = (file.tokenizer or {}).get("digest")
    return str(found) if found else None


def _looks_held_out(resolved: Resolved, file: DataFile) -> Iterator[Finding]:
    """Warn of training data whose name says that it was held out."""
    name = os.path.basename(file.prefix)
    corpus = corpus_of(name)
    if corpus is None or file.error:
        return
    yield warning(
        "held-out-trained-on",
        f"{flag('dataset_dir')}: {file.prefix} is trained on, although its name is that of documents held out for "
        "validation",
        *_as_validation(resolved, file, free_name(corpus, [s.name for s in resolved.facts.validation])),
    )


def _as_validation(resolved: Resolved, file: DataFile, name: str) -> tuple[Fix, ...]:
    """Return the fix that validates on a file named as training data; none if it is in a folder, or the only one."""
    asked = resolved.facts.asked
    path = asked.sources[file.source][1] if file.source < len(asked.sources) else ""
    others = [source for place, source in enumerate(asked.sources) if place != file.source]
    weighted = [(weight, other) for weight, other in others if weight is not None]
    if not others or os.path.basename(file.prefix) not in os.path.basename(path):
        return ()
    words = as_words(weighted) if weighted else tuple(other for _, other in others)
    sets = (*resolved.job.data.validation_data, f"{name}={path}")
    return (fix(dataset_dir=words, validation_data=sets),)


def use(resolved: Resolved) -> Iterator[Finding]:
    """Check that the sets are evaluated."""
    job, seen = resolved.job, resolved.facts.validation
    if not seen:
        return
    if resolved.model.architecture.kind == "t5":
        message = (
            f"{resolved.model.name} is a T5 model, whose samples are built from the split of its own data"
        )
        drop = fix(validation_data=(), split=job.data.split)
        if job.data.validation_data:
            yield error(
                "validation-data-unsupported", f"{flag('validation_data')} is not possible: {message}", drop
            )
        else:
            yield warning("validation-left-out", f"validation set {seen[0].name} is not evaluated: {message}")
    elif resolved.asked.logging.limit_val_batches == 0 and job.data.validation_data:
        yield warning(
            "validation-data-unused",
            f"{no_effect(['validation_data'])} with {shown('limit_val_batches', 0)}",
            fix(validation_data=()),
            fix(limit_val_batches=spec_of("limit_val_batches").default),
        )


def amount(resolved: Resolved) -> Iterator[Finding]:
    """Check that each set has at least one batch."""
    job, batch = resolved.job, resolved.job.batch.global_batch_size
    for seen in resolved.facts.validation:
        if any(f.error or not f.num_tokens for f in seen.files):
            continue
        count = validation_set(job, seen.name, seen.files).num_samples
        if count >= batch:
            continue
        length = job.data.seq_length
        text = f"{_title(seen)} has {count:,} samples of {length} tokens, fewer than one batch of " + shown(
            "global_batch_size", batch
        )
        if seen.found:
            yield warning("validation-left-out", f"{text}, so it is not evaluated")
        else:
            yield error("validation-data-too-short", text)
    yield from _held_out(resolved)


def _held_out(resolved: Resolved) -> Iterator[Finding]:
    """Report documents that `--split` holds out, but that are too few to evaluate."""
    job, facts = resolved.job, resolved.facts
    if not facts.validation or facts.stream or not validation_share(job.data.split):
        return
    count = validation_set(job, HELD_OUT, facts.data, split=job.data.split).num_samples
    if count < job.batch.global_batch_size:
        yield warning(
            "validation-left-out",
            f"{shown('split', job.data.split)} holds out {count:,} samples, fewer than one batch of "
            f"{shown('global_batch_size', job.batch.global_batch_size)}, so they are neither trained on nor evaluated",
            fix(split=None),
        )
