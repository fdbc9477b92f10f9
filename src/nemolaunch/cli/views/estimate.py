"""Estimates as lines of text."""

from __future__ import annotations

from nemolaunch.cli.views.units import count, duration, gib, gigabytes, step_duration
from nemolaunch.estimate import Estimate, MemoryEstimate
from nemolaunch.estimate.time import TimeEstimate

VERDICT = {True: "fits", False: "does NOT fit", None: "too close to tell whether it fits"}


def estimate_lines(e: Estimate) -> list[str]:
    """Format memory, time, tokens, cost and disk, each with its known error and what it is based on."""
    t = e.time
    lines = [
        row("estimate for", f"{e.gpu.name} ({e.gpu_origin}); vocabulary: {e.vocabulary}"),
        *memory_lines(e),
        *time_lines(e),
        row("tokens", f"{count(t.tokens)}: {count(t.tokens_per_step)} per step, {_per_weight(e)}"),
        row("cost", f"{t.gpu_hours:,.1f} GPU-hours"),
        row("disk", disk_text(e)),
    ]
    return lines


def time_lines(e: Estimate) -> list[str]:
    """Format the duration, the share of the peak, and where the speed comes from."""
    t = e.time
    share = f"{t.mfu_full:.0%} of {e.gpu.name}'s peak"
    work = f"{_giga(t.flops_per_token_full)} GFLOP per token"
    if t.flops_per_token_causal != t.flops_per_token_full:
        share += f" ({t.mfu_causal:.0%} counting causal attention)"
        work = work.replace(" GFLOP", f" ({_giga(t.flops_per_token_causal)}) GFLOP")
    steps = f"{t.steps:,} steps of {step_duration(t.step_s)}, {t.tokens_per_s:,.0f} tokens/s"
    return [
        row("time", f"{duration(t.total_s)} ± {t.error:.0%}: {steps}"),
        row("", f"{share}{_bubble(e)}; {work}"),
        *_validation_lines(t),
        row("", f"speed: {t.source}"),
    ]


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


def _per_weight(e: Estimate) -> str:
    active = max(1, e.active_parameters)
    return f"{e.time.tokens / active:.3g} per parameter ({count(active)} active)"


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
        r = e.rehearsal
        lines.append(row("", f"in this rehearsal {gib(r.total)} per process, plus 1 GiB for libraries"))
    return lines


def components(m: MemoryEstimate) -> str:
    """Format the components in GiB, as in `parameters 15.0 + gradients 29.9 + …`, without those near zero."""
    shown = [f"{name} {size / 2**30:,.1f}" for name, size in m.components().items() if size >= 2**26]
    return " + ".join(shown) or "less than 0.1 GiB each"


def row(title: str, text: str) -> str:
    """Format one line of a two-column table."""
    return f"{title:<14}{text}"


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
