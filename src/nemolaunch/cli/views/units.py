"""Human-readable bytes, counts and durations."""

from __future__ import annotations


def gib(num_bytes: float) -> str:
    """Format memory: `14.9 GiB`."""
    return f"{num_bytes / 2**30:,.1f} GiB"


def gigabytes(num_bytes: float) -> str:
    """Format disk space in powers of 1000: `112 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            value = num_bytes / size
            return f"{value:,.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return f"{num_bytes / 1e3:,.0f} kB"


def count(number: float) -> str:
    """Format weights and tokens with three digits: `8.03 B`; whole below a million."""
    for letter, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= size:
            return (
                f"{number / size:.3g} {letter}" if number / size < 1000 else f"{number / size:,.0f} {letter}"
            )
    return f"{number:,.0f}"


def step_duration(seconds: float) -> str:
    """Format the time of a step with three digits, in seconds up to an hour: `228 s`, `1.64 s`."""
    return (
        f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s" if seconds < 3600 else duration(seconds)
    )


def duration(seconds: float) -> str:
    """Format a duration: `3.2 days`, `5.1 hours`, `42 minutes`, `56.7 s`."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:,.1f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 120:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2g} s"
