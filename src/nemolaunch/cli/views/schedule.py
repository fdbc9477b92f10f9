"""The learning rate schedule and where a run resumes, as lines of text."""

from __future__ import annotations

import math

from nemolaunch.arithmetic.schedule import Schedule
from nemolaunch.cli.views.estimate import row, tokens_text
from nemolaunch.cli.views.units import count, duration
from nemolaunch.planning import Plan
from nemolaunch.system.quantities import counted

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48


def schedule_lines(plan: Plan) -> list[str]:
    """Return the steps, the rates at the start, the peak and the end, the schedule as a curve, and the batch."""
    if not plan.job.batch.max_steps:
        return []
    s, steps, o = plan.schedule, plan.max_steps, plan.job.optimizer
    peak = s.rate(min(s.warmup_steps, steps - 1))
    tokens = f", {tokens_text(plan.estimate)}" if plan.estimate else ""
    lines = [
        row("schedule", f"{counted(steps, 'step')} ({plan.origins.get('max_steps', 'the default')}){tokens}"),
        row("learning rate", f"{peak:.3g} ({plan.origins.get('lr', 'the default')}), {_phases(s)}"),
        row("", f"step 1: {s.rate(0):.3g}; step {steps:,}, the last: {s.rate(steps - 1):.3g}"),
        row("", curve(s, steps)),
    ]
    if o.optimizer == "adam":
        betas = f"betas {o.adam_beta1:g} and {o.adam_beta2:g}"
        lines.append(
            row("optimizer", f"Adam, {betas}, weight decay {o.weight_decay:g}, clipped to {o.clip_grad:g}")
        )
    return [*lines, row("batch", _batch(plan))]


def _batch(plan: Plan) -> str:
    sizes = plan.batch_sizes
    first, over = "", ""
    if sizes.ramp is not None:
        first = f"from {sizes.ramp.start:,} to "
        over = f" after {sizes.ramp_steps:,} steps and {sizes.samples(sizes.ramp_steps):,} sequences"
    text = f"{first}{counted(sizes.full, 'sequence')}, {count(plan.tokens_per_step)} tokens per step{over}"
    return f"{text} ({plan.origins.get('global_batch_size', 'the default')})"


def _phases(s: Schedule) -> str:
    warmup = f"reached after {counted(s.warmup_steps, 'step')} of warmup, " if s.warmup_steps else ""
    return warmup + (s.sentence if warmup else s.sentence.removeprefix("then "))


def curve(s: Schedule, steps: int) -> str:
    """Return the rates of all steps as a line of bars, from 0 to the peak."""
    width = min(WIDTH, steps)
    rates = [s.rate(i * (steps - 1) // max(1, width - 1)) for i in range(width)]
    if not all(math.isfinite(rate) for rate in rates):  # an error reports the flag
        return ""
    most = max(rates) or 1.0
    return "".join(BARS[min(len(BARS) - 1, int(rate / most * len(BARS)))] for rate in rates)


def _tokens_per_s(plan: Plan) -> float | None:
    """Return the throughput of the run so far, or else the estimate; a rehearsal is only estimated for a GPU."""
    if plan.resumes is not None and plan.resumes.tokens_per_s:
        return plan.resumes.tokens_per_s
    return plan.estimate.time.tokens_per_s if plan.estimate and plan.device == "gpu" else None


def resume_lines(plan: Plan) -> list[str]:
    """Return where the run resumes, what changes there, and how long the rest takes; nothing for a new run."""
    found = plan.resumes
    if found is None or not plan.job.batch.max_steps:
        return []
    if found.step >= plan.max_steps:
        done = (
            f"{found.step:,} steps of {found.checkpoint} are done already; --max-steps is {plan.max_steps:,}"
        )
        return [row("resumes", f"nothing is left to train: {done}")]
    sizes = plan.batch_sizes
    tokens = max(0, sizes.samples(plan.max_steps) - sizes.samples(found.step)) * plan.seq_length
    time = f", {duration(tokens / speed)} left" if (speed := _tokens_per_s(plan)) else ""
    lines = [row("resumes", f"at step {found.step:,} of {plan.max_steps:,}{time}, from {found.checkpoint}")]
    if found.rate is not None:
        before = f"{found.rate_before:.3g}" if found.rate_before is not None else "not known"
        lines.append(row("", f"learning rate there: {before} by the schedule so far, {found.rate:.3g} now"))
    if found.samples is not None:
        size = sizes.size(found.step)
        lines.append(row("", f"reads on from sample {found.samples:,}, {size:,} in the next step"))
    lines += [
        row("", f"{name.replace('_', ' ')}: {old:g} so far, {new:g} now") for name, old, new in found.changes
    ]
    return lines
