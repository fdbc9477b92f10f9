"""Record the batch scripts again, after an intended change."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    from golden.batch_plans import CASES, plan_of

    from nemolaunch.preflight.command import command
    from nemolaunch.slurm import batch_script, preflight_script

    for case in CASES:
        path = Path(__file__).parent / "sbatch" / f"{case}.sh"
        path.write_text(batch_script.script(plan_of(case)), encoding="utf-8")
        path = Path(__file__).parent / "preflight" / f"{case}.sh"
        path.write_text(preflight_script.script(plan_of(case), command(plan_of(case))), encoding="utf-8")
