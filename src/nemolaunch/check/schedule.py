"""The learning rate: its size, the phases of its schedule, and what a resumed run changes."""

from __future__ import annotations

from collections.abc import Iterator

from nemolaunch.catalogue.optimizer_table import by_size
from nemolaunch.check.support import each, error, fix, flag, no_effect, note, shown, warning
from nemolaunch.findings import Finding, Fix
from nemolaunch.job import spec_of
from nemolaunch.resolve import Resolved
from nemolaunch.resolve.filling import parameters_of
from nemolaunch.resolve.resuming import HYPERPARAMETERS, SCHEDULE, Resumption

# A rate further from that of published runs of this size is probably a slip; rates found with other batch sizes or
# parametrisations stay within
TOO_HIGH, TOO_LOW = 10.0, 0.01
JUMP = 2.0


def rates(resolved: Resolved) -> Iterator[Finding]:
    """Check the rates against each other, and the peak against published runs of models of this size."""
    o = resolved.job.optimizer
    lr, min_lr = o.lr or 0.0, o.min_lr or 0.0
    if min_lr > lr > 0 and o.lr_schedule != "constant":
        yield error(
            "min-lr-above-lr",
            f"{shown('min_lr', f'{min_lr:g}')} is above {shown('lr', f'{lr:g}')}",
            *each("min_lr", [float(f"{lr / 10:.6g}")]),
            about="min_lr",
        )
    if o.optimizer == "adam" and lr > 0:
        yield from _implausible(resolved, lr)


def _implausible(resolved: Resolved, lr: float) -> Iterator[Finding]:
    parameters = parameters_of(resolved.job, resolved.model, resolved.facts).total
    usual = by_size(parameters)
    continued = resolved.job.model.nemo_model or resolved.resumes
    if usual.lr * TOO_LOW <= lr <= usual.lr * TOO_HIGH or (lr < usual.lr and continued):
        return
    often = "usually diverges" if lr > usual.lr else "learns very slowly"
    yield warning(
        "lr-implausible",
        f"{shown('lr', f'{lr:g}')} is {'far above' if lr > usual.lr else 'far below'} the {usual.lr:g} of published "
        f"runs of this size ({usual.source.removeprefix('as ')}); with it, a model of {parameters:,} parameters "
        f"{often}",
        *each("lr", [usual.lr]),
        about="lr",
    )


def phases(resolved: Resolved) -> Iterator[Finding]:
    """Check that warmup and decay fit, and that flags of the schedule are those of its kind."""
    o, steps = resolved.job.optimizer, resolved.job.batch.max_steps or 0
    warmup, end = o.warmup_steps or 0, o.decay_steps or 0
    yield from _unused(resolved)
    if steps < 1:
        return
    if o.lr_schedule != "constant" and end < 1:
        yield from _no_decay(resolved, steps)
    elif warmup >= (last := steps if o.lr_schedule == "constant" else min(end, steps)):
        what = "the decay" if last == end != steps else "the run"
        yield warning(
            "warmup-too-long",
            f"{_warmup(resolved)} is not over at step {last:,}, the end of {what}: the rate never reaches "
            f"{shown('lr', f'{o.lr:g}')}",
            _shorter(resolved, last),
            about="warmup_steps",
        )
    if 0 < end < steps and o.lr_schedule != "constant" and not _is_given(resolved, "decay_steps"):
        yield note(
            "decay-ends-early",
            f"the decay ends at step {end:,}; the last {steps - end:,} of {steps:,} steps train at the minimum rate "
            f"{o.min_lr:g}",
            fix(decay_steps=None),
        )
    decay = o.wsd_decay_steps or 0
    if o.lr_schedule == "wsd" and warmup < end < warmup + decay:
        yield error(
            "wsd-decay-too-long",
            f"{shown('wsd_decay_steps', decay)} and {warmup:,} steps of warmup exceed {shown('decay_steps', end)}",
            *each("wsd_decay_steps", [end - warmup]),
            about="wsd_decay_steps",
        )


def _is_given(resolved: Resolved, name: str) -> bool:
    """Return whether this command, or a file it names, gives the value, also in another unit."""
    by = resolved.origins.get(name, "")
    return by == "flag" or by.startswith("file ") or bool(resolved.converted)


def _no_decay(resolved: Resolved, steps: int) -> Iterator[Finding]:
    """Report that the minimum rate takes the whole run; a decay that ends before step 1 is out of range."""
    constant = resolved.converted.get("constant_steps")
    if constant is not None:
        yield error(
            "warmup-too-long",
            f"{shown('constant_steps', constant)} at the minimum rate does not leave a step of the {steps:,} for "
            "warmup and decay",
            *each("constant_steps", [steps // 10]),
            about="constant_steps",
        )


def _warmup(resolved: Resolved) -> str:
    """Return the flag that sets the warmup, as it was given."""
    ratio = resolved.converted.get("warmup_ratio")
    steps = shown("warmup_steps", resolved.job.optimizer.warmup_steps or 0)
    return steps if ratio is None else f"{shown('warmup_ratio', f'{ratio:g}')} ({steps})"


def _shorter(resolved: Resolved, end: int) -> Fix:
    """Return the fix that makes the warmup a tenth of these steps, in the unit that was given."""
    steps = end // 10
    if "warmup_ratio" not in resolved.converted:
        return fix(warmup_steps=steps)
    return fix(warmup_ratio=float(f"{steps / (resolved.job.batch.max_steps or 1):.3g}"))


def _unused(resolved: Resolved) -> Iterator[Finding]:
    """Report flags of another schedule."""
    style = resolved.job.optimizer.lr_schedule
    names = () if style == "wsd" else ("wsd_decay_steps", "wsd_decay_style")
    if style == "constant":
        names = (*names, "min_lr", "decay_steps", "constant_steps")
    asked = resolved.asked
    given = [name for name in names if asked.get(name) != spec_of(name).default]
    if given:
        yield warning(
            "schedule-flags",
            f"{no_effect(given)} with {shown('lr_schedule', style)}",
            fix(**{name: spec_of(name).default for name in given}),
            *(each("lr_schedule", ["wsd"]) if set(given) <= {"wsd_decay_steps", "wsd_decay_style"} else ()),
        )


def resumed(resolved: Resolved) -> Iterator[Finding]:
    """Report what changes where a run resumes."""
    found = resolved.resumes
    if found is None:
        return
    if resolved.job.checkpoint.resume_schedule == "checkpoint":
        yield from _kept(resolved)
        yield from _other_settings(found)
        return
    before, now = found.rate_before, found.rate
    if before is not None and now is not None and max(before, now) > JUMP * min(before, now):
        yield warning(
            "lr-jump",
            f"the run resumes at step {found.step:,}, where the learning rate was to be {before:.3g} by its schedule "
            f"so far and is {now:.3g} with the flags of this command",
            fix(resume_schedule="checkpoint"),
            *_without_jump(resolved, before, now),
            about="lr",
        )
    yield from _other_settings(found)


def _without_jump(resolved: Resolved, before: float, now: float) -> tuple[Fix, ...]:
    """Return the peak with which the new schedule continues at the rate so far, if the minimum follows the peak."""
    lr = resolved.job.optimizer.lr
    if not lr or not before or "min_lr" not in resolved.computed:
        return ()
    return each("lr", [float(f"{lr * before / now:.3g}")])


def _other_settings(found: Resumption) -> Iterator[Finding]:
    """Report other settings of the optimizer; of these, a checkpoint does not record --clip-grad."""
    changes = [f"{flag(name)} from {old:g} to {new:g}" for name, old, new in found.changes]
    kept = any(name in HYPERPARAMETERS for name, _, _ in found.changes)
    if changes:
        yield warning(
            "run-of-other-optimizer",
            f"from step {found.step:,} on, this command changes {', '.join(changes)}",
            fix(**{name: old for name, old, _ in found.changes}),
            *([fix(resume_schedule="checkpoint")] if kept else []),
        )


def _kept(resolved: Resolved) -> Iterator[Finding]:
    """Report flags that the checkpoint's schedule overrides, and a schedule that is not known."""
    found = resolved.resumes
    if found is not None and found.rate_before is None:
        yield error(
            "schedule-unknown",
            f"{shown('resume_schedule', 'checkpoint')} needs the schedule of {found.checkpoint}, but there is no "
            "plan.json of the run it belongs to",
            fix(resume_schedule="flags"),
        )
        return
    names = ("constant_steps", "warmup_ratio", *SCHEDULE, *HYPERPARAMETERS)
    asked = resolved.asked
    given = [n for n in names if asked.get(n) not in (spec_of(n).default, resolved.job.get(n))]
    if given:
        yield warning(
            "schedule-flags",
            f"{no_effect(given)} with {shown('resume_schedule', 'checkpoint')}",
            fix(**{name: spec_of(name).default for name in given}),
            fix(resume_schedule="flags"),
        )
