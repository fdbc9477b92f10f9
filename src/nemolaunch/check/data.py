"""Training data: whether they exist, are readable, match the tokenizer, and suffice."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator

from nemolaunch.check import tokenizer_code
from nemolaunch.check.batch import batch_unit
from nemolaunch.check.support import each, error, fix, flag, note, shown, warning
from nemolaunch.data.blend import Share, as_words, is_total
from nemolaunch.data.stream_budget import validation_share
from nemolaunch.data.validation_sets import HOLD_OUT
from nemolaunch.findings import Finding, Fix
from nemolaunch.resolve import Resolved
from nemolaunch.system import remote
from nemolaunch.system.quantities import counted

# Data repeated for more than a few epochs yield little (Muennighoff et al. 2023, arXiv 2305.16264)
MANY_EPOCHS, FAR_TOO_MANY_EPOCHS = 4, 400
# Enough for a warmup and a decay
STEPS_PER_EPOCH = 100
SHOWN_FILES = 5
# The largest vocabulary for which Megatron's tools write 16-bit token ids (`DType.optimal_dtype`)
MOST_IN_16_BITS = 65_536


def files(resolved: Resolved) -> Iterator[Finding]:
    """Check the files themselves and the folder of their index cache."""
    facts = resolved.facts
    if facts.stream is not None:
        return
    if not resolved.job.data.dataset_dir:
        yield error("data-missing", f"{flag('dataset_dir')} is not given")
    if stored := [word for word in resolved.job.data.dataset_dir if remote.is_url(word)]:
        yield error(
            "data-in-object-store",
            f"{shown('dataset_dir', stored[0])}: training reads .bin and .idx from a file system, because "
            "Megatron-Core's reader of objects would fetch 256 MiB for almost every sample of large "
            "data; copy them there first",
        )
        return
    if facts.asked.error:
        yield error("blend-unreadable", f"{flag('dataset_dir')}: {facts.asked.error}")
    yield from _unfinished(resolved)
    yield from _unusable(resolved)
    if facts.index_cache_error:
        given = resolved.job.data.index_mapping_dir
        yield error(
            "index-cache",
            f"the dataset's index cache cannot be created: {facts.index_cache_error}",
            *(() if given else each("index_mapping_dir", [os.path.join(facts.run.folder, "index")])),
        )


def _unfinished(resolved: Resolved) -> Iterator[Finding]:
    """Report data that are still being written, or of which a part is not."""
    for run in resolved.facts.unfinished:
        if run.goes_on:
            yield error(
                "data-unfinished",
                f"nemolaunch tokenize is still writing {run}: wait for it with --wait-for-data. If its jobs were"
                f" cancelled, run it again, or remove {run.folder}",
            )
        else:
            kind = warning if any(not f.error for f in resolved.facts.data) else error
            yield kind(
                "data-unfinished",
                f"nemolaunch tokenize was interrupted while it wrote {run}, whose documents are missing: run it again"
                f" to finish, or remove {run.folder}",
            )


def _unusable(resolved: Resolved) -> Iterator[Finding]:
    """Report files that are missing, incomplete or empty, and not about to be; if there are many, the first few."""
    facts = resolved.facts
    filled = {run.source for run in facts.unfinished if run.goes_on}
    places = {place for place, (_, path) in enumerate(facts.asked.sources) if path in filled}
    unusable = [f for f in facts.data if (f.error or f.num_tokens == 0) and f.source not in places]
    for file in unusable[:SHOWN_FILES]:
        if file.error:
            fixes = [_instead(resolved, file.source, file.instead)] if file.instead else []
            if file.is_text:
                fixes.append(fix(data_mode="stream"))
            yield error("data-unreadable", f"{flag('dataset_dir')}: {file.error}", *fixes)
        else:
            yield error("data-empty", f"{flag('dataset_dir')}: {file.prefix} contains no tokens")
    if len(unusable) > SHOWN_FILES:
        more = len(unusable) - SHOWN_FILES
        yield error("data-unreadable", f"{flag('dataset_dir')}: {more} more files are not usable")


def _instead(resolved: Resolved, place: int, path: str) -> Fix:
    """Return the fix that replaces the path of that source."""
    asked = resolved.facts.asked
    sources = [(w, path if i == place else p) for i, (w, p) in enumerate(asked.sources)]
    weighted = [(w, p) for w, p in sources if w is not None]
    if asked.shares and len(weighted) == len(sources):
        return fix(dataset_dir=as_words(weighted))
    words = [word for w, p in sources for word in (*(() if w is None else (f"{w:g}",)), p)]
    return fix(dataset_dir=tuple(words))


def split(resolved: Resolved) -> Iterator[Finding]:
    """Check `--split`."""
    given = resolved.job.data.split or HOLD_OUT
    parts = given.split(",")
    shares = [_number(part) for part in parts]
    bad = any(share is None or not math.isfinite(share) or share < 0 for share in shares)
    if bad or len(parts) != 3 or not shares[0]:
        yield error(
            "split",
            f"{shown('split', repr(given))} is not three comma-separated shares, the first of them above 0",
            *each("split", [_completed(shares) or HOLD_OUT]),
            about="split",
        )


def _completed(shares: list[float | None]) -> str | None:
    """Return the shares completed to three; None if they are not valid otherwise."""
    good = [s for s in shares if s is not None and math.isfinite(s) and s >= 0]
    if len(good) != len(shares) or len(good) > 3 or not good[0]:
        return None
    return ",".join(f"{share:g}" for share in [*good, 0.0, 0.0][:3])


def _number(text: str) -> float | None:
    """Return a share as a number; None if it has more than the digits and dots that Megatron reads.

    See `parse_and_normalize_split`.
    """
    return float(text) if re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*", text, re.ASCII) else None


def weights(resolved: Resolved) -> Iterator[Finding]:
    """Check blend weights."""
    asked, words = resolved.facts.asked, resolved.job.data.dataset_dir
    if asked.unpaired is not None:
        yield error(
            "blend-weight-unpaired",
            f"{flag('dataset_dir')}: the weight {asked.unpaired} has no path after it",
            fix(dataset_dir=words[:-1]),
        )
    given = [weight for weight, _ in asked.sources]
    without = tuple(path for _, path in asked.sources)
    missing = given.count(None)
    if 0 < missing < len(given):
        yield error(
            "blend-weights-mixed",
            f"{flag('dataset_dir')}: only {len(given) - missing} of {len(given)} paths have a weight",
            fix(dataset_dir=without),
        )
        return
    if missing:
        if resolved.job.data.blend_by == "rows":
            yield error(
                "blend-by-rows",
                f"{shown('blend_by', 'rows')} needs weights, but {flag('dataset_dir')} has none",
                fix(blend_by=None),
            )
        return
    yield from _shares([(w, path) for w, path in asked.sources if w is not None], asked.shares)


def _shares(sources: list[tuple[float, str]], are_shares: bool) -> Iterator[Finding]:
    """Check that weights are positive, sources are distinct, and shares sum to a whole."""
    valid = [(w, path) for w, path in sources if math.isfinite(w) and w > 0]
    distinct = list({path: (w, path) for w, path in reversed(valid)}.values())[::-1]
    fixes = [fix(dataset_dir=as_words(distinct))] if distinct else []
    zero = next(((w, path) for w, path in sources if (w, path) not in valid), None)
    if zero is not None:
        yield error(
            "blend-weights",
            f"{flag('dataset_dir')}: the weight of {zero[1]} is {zero[0]:g}; it must be above 0",
            *fixes,
        )
    paths = [path for _, path in sources]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        yield error("blend-twice", f"{flag('dataset_dir')}: the blend lists {twice} more than once", *fixes)
    total = math.fsum(w for w, _ in sources)
    if are_shares and zero is None and twice is None and not is_total(total):
        yield error(
            "blend-total", f"{flag('dataset_dir')}: the weights sum to {total:g} instead of 1 or 100", *fixes
        )


def amount(resolved: Resolved) -> Iterator[Finding]:
    """Check that the data suffice for the steps."""
    job, epoch = resolved.job, resolved.epoch_samples
    if not resolved.facts.data or any(f.error for f in resolved.facts.data) or any(split(resolved)):
        return
    batch, steps = job.batch.global_batch_size, job.batch.max_steps or 0
    unit, sizes = batch_unit(resolved), resolved.batch_sizes
    if batch > epoch >= 1 and "max_steps" not in resolved.computed:
        yield warning(
            "batch-beyond-data",
            f"{shown('global_batch_size', batch)} exceeds the {epoch:,} samples of the training split: every step "
            "reads some of them more than once",
            *each("global_batch_size", _batch_that_fits(epoch, unit)),
            about="global_batch_size",
        )
    if epoch < 1:
        longest = max(f.split_tokens[0] for f in resolved.facts.data) - 1
        yield error(
            "data-too-short",
            f"{shown('seq_length', job.data.seq_length)} is too long for the data: a sample is one token longer, and "
            f"the longest training file has {max(0, longest + 1)} tokens",
            *each("seq_length", [longest] if longest > 0 else []),
            about="seq_length",
        )
    elif steps < 1 and "max_steps" in resolved.computed:
        yield error(
            "data-too-small",
            f"the training split has {epoch:,} samples of {job.data.seq_length} tokens, fewer than one step of "
            f"{shown('global_batch_size', batch)} needs",
            *each("global_batch_size", _batch_that_fits(epoch, unit)),
        )
    elif worst := max((s for s in resolved.ledger if s.epochs > MANY_EPOCHS), key=_epochs, default=None):
        yield _repeated(resolved, worst.path, worst.epochs, int(steps * MANY_EPOCHS / worst.epochs))
    elif not resolved.ledger and sizes.samples(steps) > MANY_EPOCHS * epoch:
        enough = sizes.steps_within(MANY_EPOCHS * epoch)
        yield _repeated(resolved, "the data", sizes.samples(steps) / epoch, enough)


def _repeated(resolved: Resolved, what: str, epochs: float, enough: int) -> Finding:
    """Say that data are repeated too often, by the flag that was given, and how many steps are few enough."""
    name = next(
        (n for n in ("max_tokens", "tokens_per_param") if resolved.asked.get(n) is not None), "max_steps"
    )
    value = resolved.asked.get(name) if name != "max_steps" else resolved.job.batch.max_steps
    per_step = resolved.job.batch.global_batch_size * (resolved.job.data.seq_length or 1)
    fewer = {"max_steps": enough, "max_tokens": enough * per_step}
    instead = {name: fewer[name]} if name in fewer else {name: None, "max_steps": enough}
    limit = f"{MANY_EPOCHS} epochs" + (f" ({counted(enough, 'step')})" if enough > 0 else "")
    is_far = epochs > FAR_TOO_MANY_EPOCHS  # so few steps would be no training
    return warning(
        "data-repeated",
        f"{shown(name, value)} repeats {what} for {epochs:.1f} epochs; beyond {limit}, repetition adds little"
        + (": train on more data" if is_far else ""),
        *([fix(**instead)] if enough > 0 and not is_far else []),
        about=name,
    )


def _batch_that_fits(epoch: int, unit: int) -> list[int]:
    """Return a batch size with which an epoch has about a hundred steps, at least one; none if no batch fits."""
    return [max(1, epoch // STEPS_PER_EPOCH // unit) * unit] if epoch >= unit else []


def validation(resolved: Resolved) -> Iterator[Finding]:
    """Check that the validation split has at least one batch if validation is requested."""
    job, files = resolved.job, resolved.facts.data
    if resolved.facts.validation:
        return
    asked = resolved.asked.logging.limit_val_batches
    if job.logging.limit_val_batches or asked < 1 or not files or any(f.error for f in files):
        return
    length, batch = job.data.seq_length or 1, job.batch.global_batch_size
    held_out = sum(f.samples(1, length) for f in files)
    yield warning(
        "validation-left-out",
        f"{shown('split', resolved.asked.data.split or HOLD_OUT)} holds out {counted(held_out, 'sample')}, fewer than "
        "one batch of "
        f"{shown('global_batch_size', batch)}, so validation is turned off",
        *each("split", _larger_shares(resolved, length, batch)),
        fix(limit_val_batches=0),
    )


def _larger_shares(resolved: Resolved, length: int, batch: int) -> list[str]:
    """Return a split with slightly more validation tokens than needed; none if it would take over a fifth.

    Shares are of documents. Where those that are held out now are shorter than others, more of them are needed.
    """
    files = resolved.facts.data
    needed = 1.1 * length * (batch + len(files))  # the last tokens of each file are not a whole sample
    share = needed / max(1, sum(f.num_tokens for f in files))
    if held_out := sum(f.split_tokens[1] for f in files):
        share = max(share, validation_share(resolved.job.data.split) * needed / held_out)
    thousandths = math.ceil(1000 * share)
    return [f"{999 - thousandths},{thousandths},1"] if thousandths <= 200 else []


def _epochs(share: Share) -> float:
    return share.epochs


def tokens(resolved: Resolved) -> Iterator[Finding]:
    """Check that tokenizer, data and vocabulary match."""
    facts = resolved.facts
    recorded = [f.tokenizer for f in facts.data if f.tokenizer and f.tokenizer.get("digest")]
    made_by = {str(t["digest"]): str(t.get("name")) for t in recorded}
    if len(made_by) > 1:
        yield error(
            "data-of-several-tokenizers",
            f"the data were made with {len(made_by)} different tokenizers: {', '.join(made_by.values())}",
        )
    elif made_by and facts.tokenizer and facts.tokenizer.digest and facts.tokenizer.digest not in made_by:
        (name,) = made_by.values()
        yield error(
            "tokenizer-not-of-data",
            f"{shown('hf_model_id', facts.tokenizer.source)} is not the tokenizer that the data were made with",
            *each("hf_model_id", [name] if name != facts.tokenizer.source else []),
            about="hf_model_id",
        )
    yield from _ids(resolved)


def _ids(resolved: Resolved) -> Iterator[Finding]:
    facts = resolved.facts
    vocabulary = facts.tokenizer.vocab_size if facts.tokenizer else None
    largest = max((f.max_token_id for f in facts.data if f.max_token_id is not None), default=None)
    if vocabulary is not None and largest is not None and largest >= vocabulary:
        yield error(
            "token-ids",
            f"the data contain token ids up to {largest} or more, but the tokenizer has only {vocabulary} tokens",
        )
    narrow = next((f for f in facts.data if not f.tokenizer and f.id_code == "H"), None)
    if narrow and vocabulary is not None and vocabulary > MOST_IN_16_BITS:
        yield error(
            "token-width",
            f"{flag('dataset_dir')}: {narrow.prefix} has 16-bit token ids, too narrow for the {vocabulary} tokens of "
            f"{shown('hf_model_id', facts.tokenizer.source if facts.tokenizer else '')}, so another tokenizer "
            "made them",
        )
    preset = resolved.model.architecture.vocab_size
    if preset is None or resolved.model.architecture.kind == "mamba":
        return
    if vocabulary is not None and vocabulary > preset:
        yield error(
            "vocabulary-too-small",
            f"the preset vocabulary of {resolved.model.name} has {preset} rows, too few for the {vocabulary} tokens of "
            "the tokenizer; a YAML model file with this recipe as `base:` uses the tokenizer's vocabulary",
        )


def tokenizer(resolved: Resolved) -> Iterator[Finding]:
    """Check the tokenizer itself."""
    found = resolved.facts.tokenizer
    if found is None:
        yield error(
            "tokenizer-missing",
            f"{flag('hf_model_id')} is not given, and no tokenizer is recorded beside the data",
        )
    elif found.error:
        fixes = each("hf_model_id", [found.instead] if found.instead else [])
        yield error("tokenizer-unusable", f"{flag('hf_model_id')}: {found.error}", *fixes)
    elif found.folder:
        yield from tokenizer_code.rules(resolved, found)
    elif found.folder is None:
        yield note(
            "tokenizer-on-hub",
            f"{shown('hf_model_id', found.source)} is not in the local cache; it is downloaded before the launch",
        )
        if "HF_TOKEN" not in resolved.facts.secrets and not resolved.job.model.hf_token:
            yield warning(
                "hf-token",
                f"{shown('hf_model_id', found.source)}: HF_TOKEN is not set, but a gated repository needs it",
            )
