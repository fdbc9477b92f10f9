"""Record the batch scripts again, after an intended change."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    from golden.batch_plans import CASES, plan_of

    from nemolaunch.slurm import batch_script

    for case in CASES:
        path = Path(__file__).parent / "sbatch" / f"{case}.sh"
        path.write_text(batch_script.script(plan_of(case)), encoding="utf-8")
