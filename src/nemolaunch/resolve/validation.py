"""What is held out from training, and the sets that each validation evaluates."""

from __future__ import annotations

from nemolaunch.catalogue import ModelSpec
from nemolaunch.data.stream_budget import validation_share
from nemolaunch.data.validation_sets import HELD_OUT, HOLD_OUT, TRAIN_ON_ALL, ValidationSet
from nemolaunch.facts import Facts
from nemolaunch.facts.data_files import DataFile
from nemolaunch.job import Job
from nemolaunch.resolve.filling import Filling
from nemolaunch.system.quantities import counted

VALIDATE_STREAM_EVERY = 1000
VALIDATION = 1  # place in `DataFile.split_tokens`


def split_of(job: Job, facts: Facts) -> tuple[str, str]:
    """Return the split of the training files that applies, and why it is not the given one."""
    given = job.data.split
    wanted = given or (TRAIN_ON_ALL if facts.validation else HOLD_OUT)
    applied = facts.split or wanted
    if applied != wanted:
        return applied, f"with {wanted} a share has no document"
    if given is None and facts.validation:
        return applied, "there are validation sets, so all documents are trained on"
    return applied, "the default"


def validation_sets(job: Job, facts: Facts, model: ModelSpec) -> tuple[ValidationSet, ...]:
    """Return the sets that are evaluated, each with at least one batch; none if validation is off.

    If `--split` is given as well, the documents that it holds out are the first set. Those of a stream are not a
    set: their loss is `val_loss`.
    """
    if not facts.validation or model.architecture.kind == "t5":
        return ()
    sets = [validation_set(job, each.name, each.files, found=each.found) for each in facts.validation]
    if facts.stream is None and validation_share(job.data.split):
        sets.insert(0, validation_set(job, HELD_OUT, facts.data, split=job.data.split))
    return tuple(each for each in sets if each.num_batches > 0)


def batches_per_validation(job: Job, sets: tuple[ValidationSet, ...], *, stream: bool) -> int:
    """Return the global batches of one validation: those of all sets, or of what `--split` holds out."""
    rows = stream and validation_share(job.data.split) > 0
    held_out = job.logging.limit_val_batches if rows or not sets else 0
    return max(0, held_out) + sum(each.num_batches for each in sets)


def validation_set(
    job: Job,
    name: str,
    files: tuple[DataFile, ...],
    *,
    split: str | None = None,
    found: bool = False,
) -> ValidationSet:
    """Return the set of these files, counting their validation share; files without a sample are dropped."""
    length = job.data.seq_length or 1
    counted = [(f, f.samples(VALIDATION, length)) for f in files]
    used = [(file, count) for file, count in counted if count > 0 and not file.error]
    available = sum(count for _, count in used)
    batches = available // max(1, job.batch.global_batch_size)
    return ValidationSet(
        name=name,
        prefixes=tuple(file.prefix for file, _ in used),
        tokens=sum(file.split_tokens[VALIDATION] for file, _ in used),
        num_samples=available,
        num_batches=max(0, min(job.logging.limit_val_batches, batches)),
        split=split,
        found=found,
    )


def fill(filling: Filling, facts: Facts, model: ModelSpec, epoch: int) -> None:
    """Set how often to validate, and on how many batches. The number of steps must be known."""
    _interval(filling, epoch)
    _batches(filling, facts, model)


def _interval(filling: Filling, epoch: int) -> None:
    """Set how often to validate, at most once per run."""
    job = filling.job
    steps, batch = max(1, job.batch.max_steps or 0), max(1, job.batch.global_batch_size)
    given = job.logging.val_check_interval
    if given is None:
        long = steps > 1000
        interval = (
            max(1, min(steps, epoch // batch // 5 if epoch else VALIDATE_STREAM_EVERY)) if long else steps
        )
        origin = "a fifth of an epoch" if epoch else "the length of an epoch is unknown"
        filling.set("val_check_interval", interval, origin if long else "once, at the end")
    elif given > steps:
        filling.set("val_check_interval", steps, f"{given} exceeds the number of steps")


def _batches(filling: Filling, facts: Facts, model: ModelSpec) -> None:
    """Limit the batches of a validation to what the largest set, or else the validation split, has."""
    job = filling.job
    limit, batch = job.logging.limit_val_batches, max(1, job.batch.global_batch_size)
    rows = bool(facts.stream and validation_share(job.data.split))
    if facts.validation and not rows:
        most = max((each.num_batches for each in validation_sets(job, facts, model)), default=0)
        reason = f"the largest validation set has {counted(most, 'batch', 'batches')}"
    elif facts.stream:
        most, reason = (limit if rows else 0), f"--split {job.data.split} holds nothing out"
    else:
        held_out = sum(f.samples(VALIDATION, job.data.seq_length or 1) for f in facts.data)
        most = max(held_out // batch, 1 if held_out and len(facts.data) == 1 else 0)
        reason = f"the validation split has {counted(held_out, 'sample')}"
    if limit > most:
        filling.set("limit_val_batches", most, reason)
