"""Write every case's batch script with NeMo-Run: `materialise.py FOLDER` creates FOLDER/CASE/…"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    from golden.batch_plans import CASES, plan_of

    from nemolaunch.launching.experiment import add_task, experiment

    for case in CASES:
        plan = plan_of(case, str(Path(sys.argv[1]) / case))
        with experiment(plan) as running:
            add_task(running, plan)
            running.dryrun(log=False, delete_exp_dir=False)
