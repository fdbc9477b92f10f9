"""Jobs with the real batch script around a light worker: what the script does needs no NeMo."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

from golden.batch_plans import plan_of
from slurm.cluster import Cluster

from nemolaunch.facts.submission import Submission
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job, batch_script
from nemolaunch.system.atomic_files import write_json

SMALL: dict[str, object] = {
    "partition": "main", "account": "root", "num_gpus": 2, "time": "10", "gres": "none", "launcher": "srun"
}  # fmt: skip


class LightRun:
    """A run folder whose ranks are `worker.py` with some behaviour instead of a training.

    Args:
        behaviour: what each start does: names of `worker.BEHAVIOURS`, the last one for all further starts.
        backend: whose command the worker stands in for, and whose checkpoints it pretends to save.
        flags: of the job, besides those of a small one.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        behaviour: list[str],
        *,
        backend: str = "nemo2",
        **flags: object,
    ) -> None:
        self.cluster = cluster
        plan = plan_of("no-container" if backend == "nemo2" else "bridge-no-container", str(folder))
        data = folder.parent / "data"
        data.mkdir(parents=True, exist_ok=True)
        self.plan: Plan = dataclasses.replace(
            plan,
            job=plan.job.with_values(**SMALL | flags),
            blend=((None, str(data / "text_document")),),
            submission=Submission(number=1, bin=str(Path(sys.executable).parent)),
        )
        self.run = self.plan.run
        self.run.logs.mkdir(parents=True)
        self.plan.save()
        write_json(folder / "behaviour.json", behaviour)
        self.script = batch_job.script_path(self.plan)
        (batch_job.task_dir(self.plan) / "code").mkdir(parents=True)
        worker = f"{sys.executable} {Path(__file__).with_name('worker.py')} {folder} {backend}"
        text = batch_script.script(self.plan)
        runner = f"{batch_job.quoted(self.plan.python)} -m {self.plan.entry}" if self.plan.python else ""
        start = text.index(runner or "python -m nemo_run")
        self.script.write_text(text[:start] + worker + text[text.index("\n", start) :])

    def hurry(self, **values: object) -> None:
        """Change figures at the top of the script that would make a test wait."""
        text = self.script.read_text()
        for name, value in values.items():
            text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, count=1, flags=re.MULTILINE)
        self.script.write_text(text)

    def submit(self) -> str:
        """Hand it to Slurm. Returns the job's id."""
        return self.cluster.run("sbatch", "--requeue", "--parsable", str(self.script))

    def attempts(self) -> list[str]:
        """The jobs that started, one entry a start."""
        rows = self.run.slurm_attempts.read_text().splitlines() if self.run.slurm_attempts.exists() else []
        return [row.split()[0] for row in rows]

    def wait_until_running(self, job: str) -> None:
        """Until its ranks run, and the next job is queued if there is to be one."""
        ready = self.run.slurm_end if not self.plan.job.launch.chain else self.run.slurm_next
        self.cluster.wait_until(
            "running job", lambda: self.cluster.state(job) == "RUNNING" and ready.exists() and self.at_work()
        )

    def at_work(self) -> bool:
        """Whether this start's first rank has begun."""
        return len(list(self.run.root.glob("working-*"))) >= len(self.attempts()) > 0

    def queued(self) -> list[str]:
        """Jobs of the run that wait or run."""
        name = batch_job.job_name(self.plan)
        return self.cluster.run("squeue", "-h", "-o", "%i", f"--name={name}").split()

    def wait_until_over(self, timeout_s: float = 120) -> None:
        self.cluster.wait_until("end of the run", lambda: not self.queued(), timeout_s)

    def output(self) -> str:
        """What the batch scripts and the ranks said."""
        return "\n".join(p.read_text() for p in sorted(batch_job.task_dir(self.plan).glob("*.out")))

    def output_of(self, job: str) -> str | None:
        """What that job's batch script said; None where it never started."""
        found = list(batch_job.task_dir(self.plan).glob(f"sbatch_*_{job}.out"))
        assert len(found) <= 1
        return found[0].read_text() if found else None
