"""Index caches of earlier contents of the data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from nemolaunch.check.support import note
from nemolaunch.data.old_index_caches import OldCache
from nemolaunch.findings import Finding
from nemolaunch.resolve import Resolved

SHOWN = 5


def old(resolved: Resolved) -> Iterator[Finding]:
    """Report caches that are not read any more, with their size and the command that removes them."""
    caches = resolved.facts.old_caches
    if not caches:
        return
    several = len(caches) > 1
    size = sum(cache.num_bytes for cache in caches)
    yield note(
        "index-cache-old",
        f"{len(caches)} index cache{'s' if several else ''} of these data ({size / 1e6:,.1f} MB) "
        f"{'are' if several else 'is'} not read any more, since {'they are' if several else 'it is'} for other "
        f"content, or named without regard to it; remove with: {_removal(caches)}",
    )


def _removal(caches: tuple[OldCache, ...]) -> str:
    words = " ".join(_quoted(cache.pattern) for cache in caches[:SHOWN])
    more = f" (and {len(caches) - SHOWN:,} more)" if len(caches) > SHOWN else ""
    return f"rm -r {words}{more}"


def _quoted(pattern: str) -> str:
    """Return a path for the shell; a `*` at its end stays a pattern."""
    return shlex.quote(pattern[:-1]) + "*" if pattern.endswith("*") else shlex.quote(pattern)
