"""Human-readable numbers, durations and sizes."""

from __future__ import annotations

from collections.abc import Mapping

SHOWN_SETS = 4


def count(value: float) -> str:
    """Format a count: `1,234`, `56.7 k`, `8.03 B`; from ten thousand on with three digits and a unit."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{three_digits(value / (1e3 if unit == 'k' else size))} {unit}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else three_digits(value)


def three_digits(value: float) -> str:
    """Format with three significant digits, without an exponent where that stays short."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Format seconds: `8 s`, `3 min 20 s`, `5 h 12 min`, `2 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {s} s" if s else f"{minutes} min"
    hours, m = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {m} min" if m else f"{hours} h"
    days, h = divmod(hours, 24)
    return f"{days} d {h} h" if h else f"{days} d"


def short_time(seconds: float) -> str:
    """Format the duration of a step with three digits: `0.8 ms`, `523 ms`, `1.23 s`."""
    return f"{three_digits(seconds)} s" if seconds >= 1 else f"{three_digits(seconds * 1e3)} ms"


def size(num_bytes: float) -> str:
    """Format bytes in binary units: `512 B`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"


def losses_of_sets(losses: Mapping[str, float]) -> str:
    """Format the losses of validation sets: `news 3.105, code 2.440`; the first few of many."""
    shown = [f"{name} {loss:.3f}" for name, loss in list(losses.items())[:SHOWN_SETS]]
    more = [f"and {len(losses) - SHOWN_SETS} more"] if len(losses) > SHOWN_SETS else []
    return ", ".join([*shown, *more])
