"""Every path a run reads or writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# In a rank's log, before everything of one start of a job on Slurm: `JOB.RESTART on HOST` follows
START = "start "
START_LINE = f"nemolaunch: {START}"


@dataclass(frozen=True)
class RunDir:
    """The folder of one run. Nothing else in the project spells these names."""

    root: Path

    @property
    def plan(self) -> Path:
        """The resolved plan; the run can be repeated from it."""
        return self.root / "plan.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, appended by the first rank."""
        return self.root / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One JSON object a line for each checkpoint evaluated while the run goes on."""
        return self.root / "evaluations.jsonl"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def launcher_log(self) -> Path:
        """What NeMo-Run and torchrun say."""
        return self.logs / "launcher.log"

    @property
    def local_end(self) -> Path:
        """How a run on this machine ended before its last step: `{"state": "failed" or "stopped", "detail": …}`."""
        return self.logs / "ended.json"

    @property
    def nemo_logs(self) -> Path:
        """NeMo's own log files; it moves what it finds there aside on every resume."""
        return self.logs / "nemo"

    def rank_log(self, rank: int) -> Path:
        """What NeMo, torch and Lightning say in that process."""
        return self.logs / f"rank{rank}.log"

    def rank_error(self, rank: int) -> Path:
        """Written by a rank that fails: the exception as JSON."""
        return self.logs / f"rank{rank}.error.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tb_logs"

    @property
    def traces(self) -> Path:
        """What profilers wrote."""
        return self.root / "traces"

    @property
    def mlflow_run(self) -> Path:
        """Id of the MLflow run, which every restart goes on with."""
        return self.root / "mlflow_run"

    @property
    def tokenizer(self) -> Path:
        """A clean copy of the tokenizer's files, which goes into every checkpoint."""
        return self.root / "tokenizer"

    @property
    def nemo_run(self) -> Path:
        """NeMo-Run's own home for this run.

        Not called `nemo_run`: outside containers NeMo-Run replaces every `/nemo_run` in its batch scripts.
        """
        return self.root / "nemorun"

    @property
    def stream(self) -> Path:
        """What a run on streams of rows keeps of its data."""
        return self.root / "stream"

    def stream_manifest(self, digest: str) -> Path:
        """The list of files that is named by its digest."""
        return self.stream / f"files-{digest[:16]}.json.gz"

    @property
    def stream_sessions(self) -> Path:
        """One JSON object a line for each start of the run."""
        return self.stream / "sessions.jsonl"

    @property
    def stream_fed(self) -> Path:
        """Which rows each rank of each session fed."""
        return self.stream / "fed"

    @property
    def finished(self) -> Path:
        """Written when the last step is done: `{"step": N}`, with `"end_of_data": true` if there can be no more."""
        return self.root / "finished.json"

    @property
    def slurm(self) -> Path:
        """What the jobs of a run tell each other over restarts; `guard.sh` writes here too."""
        return self.root / "slurm"

    @property
    def slurm_current(self) -> Path:
        """Job id and restart count of the newest start."""
        return self.slurm / "current"

    @property
    def slurm_submitted(self) -> Path:
        """Id of the job that was last submitted by hand."""
        return self.slurm / "submitted"

    @property
    def slurm_next(self) -> Path:
        """Id of the job that waits for this one to end."""
        return self.slurm / "next"

    @property
    def slurm_starts(self) -> Path:
        """One line a start: job id, restart count, Unix time, step of the newest checkpoint, nodes."""
        return self.slurm / "starts"

    @property
    def slurm_end(self) -> Path:
        """When the running job ends, Unix time, and Slurm's KillWait in seconds."""
        return self.slurm / "end"

    @property
    def slurm_ask(self) -> Path:
        """Made by a rank to have the job's end written down anew; gone once it is."""
        return self.slurm / "ask"

    @property
    def slurm_slowest_save(self) -> Path:
        """Seconds that the slowest checkpoint took."""
        return self.slurm / "slowest_save"

    @property
    def slurm_stopped(self) -> Path:
        """Why no further job is started."""
        return self.slurm / "stopped"

    @property
    def lock(self) -> Path:
        """Who writes this folder: `slurm JOB RESTART` or `local HOST PID`; touched again and again."""
        return self.root / "lock"

    @property
    def torn(self) -> Path:
        """Checkpoints that a crash cut off, moved out of the way."""
        return self.root / "torn"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint with training state, or None.

        NeMo names it `…-last`, a link to the folder of that name; after a crash the link may be missing. One
        with an `-unfinished` marker beside it was cut off while saving.
        """
        found = [p for p in self.checkpoints.glob("*") if p.is_dir() and not unfinished(p)]
        return max(found, key=lambda p: (consumed_samples(p), p.name.endswith("-last")), default=None)

    def complete_checkpoints(self) -> list[Path]:
        """Return the complete checkpoints by step, without the `-last` links to them."""
        found = [p for p in self.checkpoints.glob("*") if (p / "weights").is_dir() and not p.is_symlink()]
        return sorted((p for p in found if not unfinished(p)), key=lambda p: (step_of(p), p.name))

    def newest_checkpoint(self) -> Path | None:
        """The newest folder of a checkpoint, complete or not."""
        found = [p for p in self.checkpoints.glob("*") if p.is_dir() and not p.is_symlink()]
        return max(found, key=consumed_samples, default=None)


def unfinished(checkpoint: Path) -> bool:
    """Whether NeMo's marker of a save that did not end stands beside the checkpoint, or what it links to."""
    folders = (checkpoint, checkpoint.resolve())
    return any(folder.with_name(folder.name + "-unfinished").exists() for folder in folders)


def consumed_samples(checkpoint: Path) -> int:
    """Samples seen before the checkpoint, from its name; -1 where the name does not tell."""
    return _number_after(checkpoint.name, "consumed_samples=")


def step_of(checkpoint: Path) -> int:
    """The 0-based index of the last step a checkpoint holds, from its name; -1 where it does not tell."""
    return _number_after(checkpoint.name, "-step=")


def _number_after(name: str, key: str) -> int:
    _, found, rest = name.partition(key)
    digits = rest.split("-")[0].split(".")[0]
    return int(digits) if found and digits.isdigit() else -1


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none, or none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def end_step(run: RunDir, max_steps: int) -> int | None:
    """The step a run ended at, if that is its last: of the steps asked for, or as its data had no more."""
    found = read_json(run.finished) or {}
    step = found.get("step")
    return step if isinstance(step, int) and (step >= max_steps or found.get("end_of_data")) else None
