"""Every path a run reads or writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.system import folder_identity, json_files

# Marker in logs at the beginning of an attempt on Slurm, followed by `JOB.RESTART on HOST`
ATTEMPT = "start "
ATTEMPT_LINE = f"nemolaunch: {ATTEMPT}"
# Beginning of the line in the launcher's log about how the run's container ended
CONTAINER_LINE = "nemolaunch: the container "

# Megatron-Bridge's names of a checkpoint, and of the record of the newest complete one
_BRIDGE = re.compile(r"iter_(?P<steps>\d{7,})")
BRIDGE_TRACKER = "latest_checkpointed_iteration.txt"
BRIDGE_CONFIG, BRIDGE_TOKENIZER = "run_config.yaml", "tokenizer"  # in each checkpoint
BRIDGE_STREAM = "stream.json"  # there, of a training on a stream: its position, which nemolaunch writes


@dataclass(frozen=True)
class RunDir:
    """The folder of one run. Only this class knows the names of the files in it."""

    root: Path

    @property
    def plan(self) -> Path:
        """The resolved plan, from which the run can be repeated."""
        return self.root / "plan.json"

    @property
    def identity(self) -> Path:
        """The run's id, which moves with the folder; see `nemolaunch.system.folder_identity`."""
        return self.root / folder_identity.NAME

    @property
    def metrics(self) -> Path:
        """One JSON object per line, appended by rank 0."""
        return self.root / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One JSON object per line for each checkpoint evaluated during the run."""
        return self.root / "evaluations.jsonl"

    @property
    def upload(self) -> Path:
        """How far the upload to an object store is."""
        return self.root / "upload.json"

    @property
    def upload_lock(self) -> Path:
        """The process that uploads this run."""
        return self.root / "upload.lock"

    @property
    def labels(self) -> Path:
        """The tags and notes that users gave the run."""
        return self.root / "labels.json"

    @property
    def logs(self) -> Path:
        """The folder of log files."""
        return self.root / "logs"

    @property
    def launcher_log(self) -> Path:
        """The output of NeMo-Run and torchrun."""
        return self.logs / "launcher.log"

    @property
    def evaluation_log(self) -> Path:
        """The output of evaluations beside a run on this machine."""
        return self.logs / "evaluation.log"

    @property
    def local_end(self) -> Path:
        """How a run on this machine ended before its last step: `{"state": "failed" or "stopped", "detail": …}`."""
        return self.logs / "ended.json"

    @property
    def phases(self) -> Path:
        """What the first rank did before the first step, one JSON object per line."""
        return self.logs / "phases.jsonl"

    @property
    def nemo_logs(self) -> Path:
        """NeMo's own log files; on every resume it moves existing files aside."""
        return self.logs / "nemo"

    def rank_log(self, rank: int) -> Path:
        """Return the log of a rank: the output of NeMo, torch and Lightning in that process."""
        return self.logs / f"rank{rank}.log"

    def rank_error(self, rank: int) -> Path:
        """Return the file to which a rank that fails writes the exception as JSON."""
        return self.logs / f"rank{rank}.error.json"

    def failure_told(self, attempt: str) -> Path:
        """Return the mark that the failure of an attempt has been sent to the user's webhook."""
        return self.logs / f"failure-{attempt}.told"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tb_logs"

    @property
    def traces(self) -> Path:
        """The profilers' output."""
        return self.root / "traces"

    @property
    def mlflow_run(self) -> Path:
        """Id of the MLflow run, which every restart continues."""
        return self.root / "mlflow_run"

    @property
    def tokenizer(self) -> Path:
        """A clean copy of the tokenizer's files, included in every checkpoint."""
        return self.root / "tokenizer"

    @property
    def nemo_run(self) -> Path:
        """NeMo-Run's home for this run.

        The folder is not called `nemo_run`: outside containers, NeMo-Run replaces every `/nemo_run` in its batch
        scripts.
        """
        return self.root / "nemorun"

    @property
    def own_code(self) -> Path:
        """A folder with nothing but a link to this package, for an interpreter that does not have it."""
        return self.root / "code"

    @property
    def stream(self) -> Path:
        """Records about the data of a run on a stream of rows."""
        return self.root / "stream"

    def stream_manifest(self, digest: str) -> Path:
        """Return the list of files with that digest."""
        return self.stream / f"files-{digest[:16]}.json.gz"

    @property
    def stream_sessions(self) -> Path:
        """One JSON object per line for each attempt of the run."""
        return self.stream / "sessions.jsonl"

    @property
    def stream_fed(self) -> Path:
        """The rows that each rank of each session fed."""
        return self.stream / "fed"

    @property
    def finished(self) -> Path:
        """Written after the last step: `{"step": N}`, with `"end_of_data": true` if the data is exhausted."""
        return self.root / "finished.json"

    @property
    def slurm(self) -> Path:
        """State shared by the jobs of a run across restarts; `guard.sh` writes here too."""
        return self.root / "slurm"

    @property
    def slurm_current(self) -> Path:
        """Job id and restart count of the latest attempt."""
        return self.slurm / "current"

    @property
    def slurm_submitted(self) -> Path:
        """Id of the job last submitted by the user."""
        return self.slurm / "submitted"

    @property
    def slurm_next(self) -> Path:
        """Id of the job that waits for this one to end."""
        return self.slurm / "next"

    @property
    def slurm_attempts(self) -> Path:
        """One line per attempt: job id, restart count, Unix time, step of the newest checkpoint, nodes."""
        return self.slurm / "starts"

    @property
    def slurm_end(self) -> Path:
        """End time of the running job as Unix time, and Slurm's KillWait in seconds."""
        return self.slurm / "end"

    @property
    def slurm_ask(self) -> Path:
        """Created by a rank to request an update of `slurm_end`; removed once that is written."""
        return self.slurm / "ask"

    @property
    def slurm_slowest_save(self) -> Path:
        """Duration of the slowest checkpoint save in seconds."""
        return self.slurm / "slowest_save"

    @property
    def slurm_stopped(self) -> Path:
        """The reason why no further job is started."""
        return self.slurm / "stopped"

    @property
    def preflight(self) -> Path:
        """The folder of preflights: measurements of the nodes before the first step."""
        return self.root / "preflight"

    @property
    def preflight_result(self) -> Path:
        """What the latest preflight measured, and what is wrong with which node."""
        return self.preflight / "result.json"

    @property
    def preflight_unfit(self) -> Path:
        """The attempt that ended because of its preflight, or `-`; on the next line, the nodes to leave out."""
        return self.preflight / "unfit"

    @property
    def container(self) -> Path:
        """What a run in a container of docker, podman or apptainer needs besides: its code."""
        return self.root / "container"

    @property
    def lock(self) -> Path:
        """The process writing to this folder, `slurm JOB RESTART` or `local HOST PID`; touched regularly."""
        return self.root / "lock"

    @property
    def migration(self) -> Path:
        """Which run of the other framework this one continues, and what was compared when it was moved."""
        return self.root / "migration.json"

    @property
    def incomplete(self) -> Path:
        """Incomplete checkpoints of crashed attempts, moved out of the way."""
        return self.root / "torn"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    def last_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint with training state, or None.

        Megatron-Bridge names it `iter_STEP`. NeMo names it `…-last`, a link to the folder of that name; after a crash
        the link may be missing. A checkpoint with an `-unfinished` marker next to it was interrupted while it was
        saved.
        """
        found = [p for p in self.checkpoints.glob("*") if p.is_dir() and not unfinished(p)]
        return max(
            found, key=lambda p: (consumed_samples(p), step_of(p), p.name.endswith("-last")), default=None
        )

    def complete_checkpoints(self) -> list[Path]:
        """Return the complete checkpoints by step, without the `-last` links to them."""
        whole = [p for p in self.checkpoints.glob("*") if (p / "weights").is_dir() or is_bridge(p)]
        found = [p for p in whole if not p.is_symlink()]
        return sorted((p for p in found if not unfinished(p)), key=lambda p: (step_of(p), p.name))

    def newest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint folder, complete or not, or None."""
        found = [p for p in self.checkpoints.glob("*") if p.is_dir() and not p.is_symlink()]
        return max(found, key=lambda p: (consumed_samples(p), step_of(p)), default=None)


def is_bridge(checkpoint: Path) -> bool:
    """Return whether Megatron-Bridge wrote a checkpoint, by its name."""
    return _BRIDGE.fullmatch(checkpoint.name) is not None


def _saved_by_bridge(folder: Path) -> int:
    """Return the step of the newest checkpoint that Megatron-Bridge has completed in a folder; -1 if there is none."""
    try:
        return int((folder / BRIDGE_TRACKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return -1


def newest_of_bridge(folder: Path) -> Path | None:
    """Return the newest checkpoint that Megatron-Bridge has completed in a folder, or None."""
    found = [path for path in folder.glob("iter_*") if is_bridge(path) and not unfinished(path)]
    return max(found, key=step_of, default=None)


def unfinished(checkpoint: Path) -> bool:
    """Return whether a save was interrupted: Bridge's record is older, or NeMo's marker exists next to it."""
    if is_bridge(checkpoint):
        return step_of(checkpoint) >= _saved_by_bridge(checkpoint.parent)
    folders = (checkpoint, checkpoint.resolve())
    return any(folder.with_name(folder.name + "-unfinished").exists() for folder in folders)


def consumed_samples(checkpoint: Path) -> int:
    """Return the number of samples consumed up to the checkpoint, from its name; -1 if not in the name."""
    return _number_after(checkpoint.name, "consumed_samples=")


def step_of(checkpoint: Path) -> int:
    """Return the 0-based index of the last step in a checkpoint, from its name; -1 if not in the name."""
    found = _BRIDGE.fullmatch(checkpoint.name)
    if found:
        return int(found["steps"]) - 1
    return _number_after(checkpoint.name, "-step=")


def _number_after(name: str, key: str) -> int:
    _, found, rest = name.partition(key)
    digits = rest.split("-")[0].split(".")[0]
    return int(digits) if found and digits.isdigit() else -1


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is missing, unreadable, or not a JSON object."""
    try:
        value = json_files.read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def unfit_nodes(run: RunDir) -> tuple[str, ...]:
    """Return the nodes that preflights of this run found slow or sick."""
    try:
        lines = run.preflight_unfit.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    return tuple(filter(None, lines[1].split(","))) if len(lines) > 1 else ()


def end_step(run: RunDir, max_steps: int) -> int | None:
    """Return the step at which a run finished: its last step, or where its data was exhausted; None if neither."""
    found = read_json(run.finished) or {}
    step = found.get("step")
    return step if isinstance(step, int) and (step >= max_steps or found.get("end_of_data")) else None
