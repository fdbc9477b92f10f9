"""Write every case's batch script as it is submitted: `materialise.py FOLDER` creates FOLDER/CASE/…"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    from golden.batch_plans import CASES, plan_of

    from nemolaunch.launching.experiment import write

    for case in CASES:
        write(plan_of(case, str(Path(sys.argv[1]) / case)))
