"""Compare the checks with NeMo's and Megatron's own verdicts on 10,000 random jobs, and print the counts.

    python benchmarks/checks/differential.py [--jobs 10000] [--seed 1] [--rehearse 60]

`--rehearse N` also launches N random small jobs on the CPU and trains each for one step. Any disagreement
gives exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from forkserver import ForkServer  # noqa: E402
from truth.rehearsal import rehearse  # noqa: E402
from truth.silent import SILENT  # noqa: E402

BATCH = 500  # jobs per process, whose memory grows with Megatron's caches


def main() -> int:
    """Run the comparison and print it. Return the exit code."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--rehearse", type=int, default=60, metavar="N")
    given = options.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        server = ForkServer(Path(folder) / "server")
        try:
            total = compared(server, given.jobs, given.seed)
            trained = rehearse(server, Path(folder), given.rehearse, given.seed)
        finally:
            server.close()
    show(total, time.monotonic() - start)
    show_rehearsed(trained)
    return 1 if total["disagreements"] or trained["disagreements"] else 0


def compared(server: ForkServer, jobs: int, seed: int) -> dict[str, Any]:
    """Return the counts over all batches, each with its own seed."""
    counters = {key: Counter[str]() for key in ("codes", "alone", "silent", "stages")}
    total: dict[str, Any] = {"disagreements": [], "accepted": 0, "refused": 0, **counters}
    for number in range(-(-jobs // BATCH)):
        count = min(BATCH, jobs - number * BATCH)
        kwargs = {"seed": seed * 1_000_000 + number, "count": count}
        (part,) = server.run("truth.differential:compare", kwargs, timeout=3600)
        for key, value in part.items():
            if isinstance(value, dict):
                total[key] = Counter(total.get(key, {})) + Counter(value)
            else:
                total[key] = total.get(key, type(value)()) + value
    return total


def show(total: dict[str, Any], seconds: float) -> None:
    """Print the table."""
    both = {key: total.get(key, 0) for key in ("accepted", "refused")}
    silent = sum(total["silent"].values())
    print(f"accepted by both {both['accepted']}, refused by both {both['refused']}")
    print(f"refused by us alone, each for a stated reason: {silent} findings")
    print(f"disagreements {len(total['disagreements'])}; {seconds:.0f} s")
    print(f"where NeMo refused: {dict(total['stages'])}\n")
    print(f"{'code':<34}{'found':>7}{'alone, NeMo refused too':>26}{'NeMo accepted':>15}")
    for code, found in sorted(total["codes"].items(), key=lambda item: -item[1]):
        print(f"{code:<34}{found:>7}{total['alone'].get(code, 0):>26}{total['silent'].get(code, 0):>15}")
    print("\nwhy we refuse what NeMo accepts:")
    for code in sorted(total["silent"]):
        print(f"  {code}: {SILENT[code]}")
    for disagreement in total["disagreements"]:
        print(json.dumps(disagreement))


def show_rehearsed(trained: dict[str, Any]) -> None:
    """Print the results of the rehearsals."""
    if trained["jobs"]:
        print(
            f"\nrehearsed {trained['jobs']} jobs for one step: {trained['ran']} accepted and ran, "
            f"{trained['failed']} refused and failed, {trained['silent']} refused for a stated reason and ran"
        )
    for disagreement in trained["disagreements"]:
        print(json.dumps(disagreement))


if __name__ == "__main__":
    sys.exit(main())
