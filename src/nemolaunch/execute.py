"""Plan → running: prepares the run folder, starts the job, waits, stops it, and finds out why it failed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.plan import Plan
from nemolaunch.rundir import RunDir

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "config.json",
)
GRACE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job ended: the first rank that failed, its error, and where to read on."""

    message: str
    log: Path


def finished_step(plan: Plan) -> int | None:
    """The step a run in this folder ended at, if that is as far as the plan goes."""
    try:
        step = int(json.loads(plan.run.finished.read_text())["step"])
    except (OSError, ValueError, KeyError):
        return None
    return step if step >= int(plan.values["max_steps"]) and plan.values["resume"] == "auto" else None


def prepare(plan: Plan, hf_token: str | None = None) -> Plan:
    """Make the run folder: logs, a clean copy of the tokenizer, the plan. Returns the plan as saved.

    The tokenizer's files are copied because NeMo cannot save a folder with sub-folders (which
    `hf download --local-dir` leaves) into a checkpoint, and then only warns.

    Raises:
        NemolaunchError: if the folder cannot be written or the tokenizer cannot be had.
    """
    run = plan.run
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
        for stale in (*run.logs.glob("*.error.json"), *run.logs.glob("*.pid")):
            stale.unlink()
    except OSError as error:
        raise NemolaunchError(f"--output-dir {run.root} cannot be written: {error.strerror}") from None
    _require_idle(run)
    folder = plan.tokenizer or fetch_tokenizer(str(plan.values["hf_model_id"]), hf_token)
    _copy_tokenizer(Path(folder), run.tokenizer)
    plan.save()
    return plan


def _require_idle(run: RunDir) -> None:
    """Refuse to start a second job in the folder of one that still runs."""
    try:
        pid = int((run.logs / "launcher.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return
    if str(run.plan) in command:
        raise NemolaunchError(f"a job already runs in {run.root} (process {pid}); give this one another --experiment")


def fetch_tokenizer(hub_id: str, token: str | None) -> str:
    """Download the tokenizer's files once, here, rather than from every rank. Returns the folder.

    Raises:
        NemolaunchError: if the hub cannot be reached or refuses.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise NemolaunchError("downloading a tokenizer needs huggingface_hub: pip install 'nemolaunch[train]'") from None
    try:
        return str(snapshot_download(hub_id, allow_patterns=list(TOKENIZER_FILES), token=token))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise NemolaunchError(
            f"--hf-model-id {hub_id}: cannot fetch the tokenizer ({type(error).__name__}: {reason}). "
            "Give a local folder, or set HF_TOKEN if the repository is gated"
        ) from None


def _copy_tokenizer(source: Path, target: Path) -> None:
    """A folder with the tokenizer's files alone, replaced whole."""
    if source.resolve() == target.resolve():
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and name != "config.json":
            shutil.copyfile(source / name, temporary / name)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


class LocalJob:
    """A job running on this machine, as a process of NeMo-Run with torchrun and the ranks below it."""

    def __init__(self, plan: Plan, hf_token: str | None = None) -> None:
        self.run = plan.run
        self.world_size = plan.world_size
        environment = dict(os.environ)
        if hf_token:
            environment["HF_TOKEN"] = hf_token
        with open(self.run.launcher_log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nemolaunch.nemo2.executor", str(self.run.plan)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._pid_file = self.run.logs / "launcher.pid"
        self._pid_file.write_text(str(self.process.pid))

    def poll(self) -> int | None:
        """Exit code once the job has ended."""
        return self.process.poll()

    def stop(self) -> None:
        """End every process of the job: ask, wait a little, then kill."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_S)
        self.sweep()

    def sweep(self) -> None:
        """Kill what is left: torchrun, ranks, and the helper processes of ranks that died without ending them."""
        for session in {*self._sessions(), self.process.pid}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(session, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.wait()
        self._pid_file.unlink(missing_ok=True)

    def _sessions(self) -> Iterator[int]:
        """Process groups of torchrun and the ranks, as the ranks wrote them down in this run."""
        for path in self.run.logs.glob("rank*.pid"):
            with contextlib.suppress(OSError, ValueError):
                yield from (int(word) for word in path.read_text().split() if int(word) > 1)


def failure(run: RunDir, exit_code: int) -> Failure:
    """What went wrong first. Ranks that only noticed another's death come later in time."""
    records = []
    for path in run.logs.glob("rank*.error.json"):
        with contextlib.suppress(OSError, ValueError):
            records.append(json.loads(path.read_text()))
    if records:
        first = min(records, key=lambda record: record["time"])
        text = " ".join(str(first["message"]).split())
        return Failure(
            message=f"rank {first['rank']}: {first['type']}: {text[:600]}", log=run.rank_log(int(first["rank"]))
        )
    killed = _killed_rank(run)
    if killed is not None:
        rank, number = killed
        name = signal.Signals(number).name if number in iter(signal.Signals) else str(number)
        hint = ": often the kernel, when memory runs out" if name == "SIGKILL" else ""
        return Failure(message=f"rank {rank} was ended by {name}{hint}", log=run.rank_log(rank))
    return Failure(message=f"the launcher ended with exit code {exit_code}", log=run.launcher_log)


def _killed_rank(run: RunDir) -> tuple[int, int] | None:
    """Rank and signal from torchrun's report of its first observed failure."""
    for path in (run.launcher_log, *sorted(run.nemo_run.rglob("*.log"), key=lambda p: -p.stat().st_mtime)[:8]):
        text = path.read_text(errors="replace")
        found = re.findall(r"rank\s*:\s*(\d+)[^\n]*\n[^\n]*exitcode\s*:\s*-(\d+)", text)
        if found:
            return int(found[-1][0]), int(found[-1][1])
    return None


def tail(path: Path, lines: int = 12) -> str:
    """The end of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def wait(job: LocalJob, poll_s: float = 0.2) -> int:
    """Block until the job has ended; sweeps up after it. Returns its exit code."""
    while (code := job.poll()) is None:
        time.sleep(poll_s)
    job.sweep()
    return code
