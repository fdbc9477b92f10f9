"""The command that starts the ranks of one machine."""

from __future__ import annotations

import sys

from nemolaunch.job.profiling import nsys_file, nsys_words
from nemolaunch.planning import Plan


def torchrun_words(plan: Plan) -> list[str]:
    """Return torchrun's command line, below Nsight Systems if the job is profiled with it."""
    nsys = plan.job.logging.profile == "nsys"
    return [
        *(nsys_words(str(plan.run.traces), nsys_file(by_slurm=False)) if nsys else ()),
        plan.python or sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={plan.num_gpus}",
        "-m",
        plan.entry,
        str(plan.run.plan),
    ]
