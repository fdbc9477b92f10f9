"""Compare the checks with Megatron-Bridge's own validation on random jobs that the checks accept.

    python benchmarks/checks/bridge_differential.py [--jobs 2000] [--seed 1]

Needs the environment of `make install-bridge`. A job that Bridge refuses gives exit code 1.
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
from bridge.conftest import PYTHON  # noqa: E402
from forkserver import ForkServer  # noqa: E402

BATCH = 500  # jobs per process


def main() -> int:
    """Run the comparison and print it. Return the exit code."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jobs", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    start = time.monotonic()
    accepted: Counter[str] = Counter()
    refused: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        server = ForkServer(Path(folder) / "server", bridge=PYTHON)
        try:
            for number in range(-(-given.jobs // BATCH)):
                count = min(BATCH, given.jobs - number * BATCH)
                kwargs = {"seed": given.seed * 1_000_000 + number, "count": count}
                (part,) = server.run("truth.bridge_verdict:compare", kwargs, timeout=3600)
                accepted += Counter(part["accepted"])
                refused += part["disagreements"]
        finally:
            server.close()
    print(
        f"accepted by the checks {accepted.total()}, of {len(accepted)} models; refused by Bridge {len(refused)}"
    )
    print(f"{time.monotonic() - start:.0f} s")
    for disagreement in refused:
        print(json.dumps(disagreement))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
