"""Estimates as lines of text."""

from __future__ import annotations

from nemolaunch.cli.views.units import count, duration, gib, gigabytes, step_duration
from nemolaunch.estimate import Estimate, MemoryEstimate
from nemolaunch.estimate.time import TimeEstimate

TITLE = 14  # width of the column of titles
VERDICT = {True: "fits", False: "does NOT fit", None: "too close to tell whether it fits"}


def estimate_lines(e: Estimate, *, on_gpu: bool = True) -> list[str]:
    """Format memory, time, cost and disk, each with its known error and what it is based on.

    Without `on_gpu`, for a rehearsal that nobody asked a GPU's estimate for: published runs say nothing about this CPU.
    """
    if not on_gpu:
        return [*rehearsal_lines(e), row("disk", disk_text(e))]
    lines = [
        row("estimate for", f"{e.gpu.name} ({e.gpu_origin}); vocabulary: {e.vocabulary}"),
        *memory_lines(e),
    ]
    if e.time.steps:
        lines += [*time_lines(e), row("cost", f"{e.time.gpu_hours:,.1f} GPU-hours")]
    return [*lines, row("disk", disk_text(e))]


def rehearsal_lines(e: Estimate) -> list[str]:
    """Format the memory of a CPU process, and the time if an earlier run here measured the speed."""
    lines = [row("memory", _of_process(e))]
    t = e.time
    if not t.steps:
        return lines
    if not t.is_measured:
        hint = f"--gpu {e.gpu.name} estimates that GPU, --speed-from RUN uses an earlier run's speed"
        return [*lines, row("time", f"not estimated for a CPU; {hint}")]
    return [*lines, row("time", _duration(t)), row("", f"speed: {t.source}")]


def _of_process(e: Estimate) -> str:
    size = e.rehearsal.total if e.rehearsal else 0
    return f"{gib(size) if size >= 2**30 / 10 else 'under 0.1 GiB'} per process, plus 1 GiB for libraries"


def tokens_text(e: Estimate) -> str:
    """Format the tokens of the run, and how many each parameter gets."""
    each = e.time.tokens / max(1, e.active_parameters)
    figure = f"{each:,.0f}" if each >= 100 else f"{each:.2g}"
    return f"{count(e.time.tokens)} tokens, {figure} per parameter"


def parameters_text(e: Estimate) -> str:
    """Format the parameters of a model, and those that one token passes through."""
    active = f", {count(e.active_parameters)} active" if e.active_parameters != e.parameters else ""
    return f"{count(e.parameters)} parameters{active}"


def time_lines(e: Estimate) -> list[str]:
    """Format the duration, the share of the peak, and where the speed comes from."""
    t = e.time
    share = f"{t.mfu_full:.0%} of {e.gpu.name}'s peak"
    work = f"{_giga(t.flops_per_token_full)} GFLOP per token"
    if t.flops_per_token_causal != t.flops_per_token_full:
        share += f" ({t.mfu_causal:.0%} counting causal attention)"
        work = work.replace(" GFLOP", f" ({_giga(t.flops_per_token_causal)}) GFLOP")
    return [
        row("time", _duration(t)),
        row("", f"{share}{_bubble(e)}; {work}"),
        *_validation_lines(t),
        row("", f"speed: {t.source}"),
    ]


def _duration(t: TimeEstimate) -> str:
    steps = f"{t.steps:,} steps of {step_duration(t.step_s)}, {t.tokens_per_s:,.0f} tokens/s"
    return f"{duration(t.total_s)} ± {t.error:.0%}: {steps}"


def _validation_lines(t: TimeEstimate) -> list[str]:
    if not t.validations or not t.tokens_per_validation:
        return []
    times = f"{t.validations:,} validation{'s' if t.validations != 1 else ''}"
    return [
        row("", f"plus {duration(t.validation_s)} for {times} of {count(t.tokens_per_validation)} tokens")
    ]


def disk_text(e: Estimate) -> str:
    """Format the size of all checkpoints that exist at a time, and of one."""
    d = e.disk
    plural = "s" if d.checkpoints != 1 else ""
    each = f"{d.checkpoints} checkpoint{plural} of {gigabytes(d.checkpoint)}"
    return f"{gigabytes(d.total)} ± {d.error:.0%}: {each}"


def memory_lines(e: Estimate) -> list[str]:
    """Format the memory of the fullest GPU, compared with what it has, and its components."""
    m = e.memory
    lines = [
        row(
            "memory",
            f"{gib(m.total)} ± {gib(m.error)} of {gib(e.gpu.memory_bytes)} on {m.rank}: {VERDICT[e.fits]}",
        ),
        row("", components(m)),
    ]
    if m.host:
        lines.append(row("", f"plus {gib(m.host)} of host memory per GPU"))
    if e.rehearsal:
        lines.append(row("", f"in this rehearsal {_of_process(e)}"))
    return lines


def components(m: MemoryEstimate) -> str:
    """Format the components in GiB, as in `parameters 15.0 + gradients 29.9 + …`, without those near zero."""
    shown = [f"{name} {size / 2**30:,.1f}" for name, size in m.components().items() if size >= 2**26]
    return " + ".join(shown) or "less than 0.1 GiB each"


def row(title: str, text: str) -> str:
    """Format one line of a two-column table."""
    return f"{title:<{TITLE}}{text}"


def _bubble(e: Estimate) -> str:
    parts = []
    if e.time.bubble:
        parts.append(f"pipeline bubble {e.time.bubble:.0%}")
    if e.time.recompute_overhead:
        parts.append(f"recomputation {e.time.recompute_overhead:+.0%}")
    return ", " + ", ".join(parts) if parts else ""


def _giga(flops: float) -> str:
    """Format FLOPs in units of 1e9, with a non-zero digit even for the smallest models."""
    return f"{flops / 1e9:,.1f}" if flops >= 1e9 else f"{flops / 1e9:.2g}"
