"""Tracebacks in a log: the first error of a chain, from which the others follow."""

from __future__ import annotations

import re
from collections.abc import Collection

_PREFIX = re.compile(r"^(\[\w+\]:|\d+: )")  # torchrun's --tee and srun's --label
_START = "Traceback (most recent call last):"
_LINKS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_NAMED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception)\b")
# torchrun's own report about ranks that failed
_REPORTS = re.compile(r"ChildFailedError|SignalException")


def first_error(text: str) -> str | None:
    """Return the first error of the last chain of exceptions in a log; None if there is none.

    Python prints a chain from its first error to its last: what is raised while an error is handled, e.g. by a
    clean-up that lacks what the error has left undone, follows from it.
    """
    chains = [chain for lines in _by_process(text) for chain in _chains(lines)]
    own = [chain for chain in chains if not _REPORTS.search(chain[0])]
    return (own or chains)[-1][0] if chains else None


def _by_process(text: str) -> Collection[list[str]]:
    """Return the lines of each process, without its label."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = _PREFIX.match(line)
        label = match[0] if match else ""
        found.setdefault(label, []).append(line[len(label) :])
    return found.values()


def _chains(lines: list[str]) -> list[list[str]]:
    """Return the exceptions of each chain, in the order in which they were printed."""
    chains: list[list[str]] = []
    linked = in_traceback = False
    for line in lines:
        if line.strip() in _LINKS:
            linked = True
        elif line.strip() == _START:
            in_traceback = True
        elif line and not line[0].isspace() and (in_traceback or _NAMED.match(line)):
            if linked and chains:
                chains[-1].append(line)
            else:
                chains.append([line])
            linked = in_traceback = False
    return chains
