"""Submit a plan to a cluster over SSH."""

from __future__ import annotations

import base64
import io
import os
import shlex
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.facts import SECRET_NAMES, Facts, passed_here, secrets_here
from nemolaunch.facts.slurm_variables import in_plain_shell
from nemolaunch.job import Job
from nemolaunch.launching.on_slurm import REQUEUE, write_experiment
from nemolaunch.launching.prepare import fetch_tokenizer
from nemolaunch.launching.secrets import Secrets
from nemolaunch.launching.ssh_host import SshHost, secrets_on
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job, submission
from nemolaunch.system.json_files import read_json
from nemolaunch.system.plain_values import from_plain
from nemolaunch.tokenizer.files import files_of

LOGIN_NODE = "nemolaunch.launching.login_node"
PATHS = ("output_dir", "index_mapping_dir", "nemo_model", "resume", "setup", "python")


@dataclass(frozen=True)
class Submitted:
    """The result of a submission: the job's id, or the step at which the run had already finished."""

    job: str = ""
    finished: int | None = None


def look_there(host: SshHost, job: Job) -> tuple[Job, Facts]:
    """Return the job with its paths on the cluster made absolute, and the facts gathered there.

    Raises:
        UsageError: the job is not for Slurm.
        NemolaunchError: the host cannot be reached, or its Python is too old.
    """
    if job.launch.executor != "slurm":
        raise UsageError("--ssh submits to Slurm: add --executor slurm, and drop --dev-run")
    values = {name: job.get(name) for name in PATHS}
    values["output_dir"] = values["output_dir"] or f"runs/{job.launch.experiment}"
    job = job.with_values(**{name: _there(host, value) for name, value in values.items()})
    facts = from_plain(Facts, host.call(LOGIN_NODE, "look", send=job.values()))
    return job, replace(facts, secrets=facts.secrets | secrets_here(), passed=passed_here(job))


def _there(host: SshHost, path: str | None) -> str | None:
    """Return a path on the cluster as an absolute one; words that are not paths are returned unchanged."""
    if path is None or path in ("auto", "never"):
        return path
    return os.path.normpath(os.path.join(host.home, path[2:] if path.startswith("~/") else path))


def submit(plan: Plan, secrets: Secrets, host: SshHost, tell: Callable[[str], None]) -> Submitted:
    """Prepare the run folder on the cluster, write the job with NeMo-Run here, copy it over and submit it there.

    Raises:
        NemolaunchError: the host cannot be reached, the folder cannot be prepared, or Slurm rejects the job.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = plan.save(home / "plan.json")
        sent = {"plan": read_json(file), "tokenizer": _tokenizer_files(plan, secrets)}
        done = host.call(LOGIN_NODE, "prepare", send=sent)
        for text in done["told"]:
            tell(text)
        if done["finished"] is not None:
            return Submitted(finished=done["finished"])
        log = write_experiment(file, home / "nemorun")
        _copy(home / "nemorun" / "experiments", host, str(plan.run.nemo_run / "experiments"))
    names = (*SECRET_NAMES, *passed_here(plan.job))
    exported = {name: os.environ[name] for name in names if os.environ.get(name)}
    with secrets_on(host, {**exported, **secrets.environment()}) as secret:
        job, refusal = "", None
        try:
            job = submission.sbatch([REQUEUE, str(batch_job.script_path(plan))], _shell(host, secret))
        except NemolaunchError as error:
            log, refusal = f"{log}{error}\n", error
    host.call(LOGIN_NODE, "submitted", send={"folder": plan.folder, "job": job, "log": log})
    if refusal:
        raise refusal
    return Submitted(job=job)


def _shell(host: SshHost, secret: str | None) -> submission.Shell:
    """Return a shell on the cluster that exports the secrets in a file, and no variables that change a submission."""

    def run(command: str) -> tuple[int, str, str]:
        command = in_plain_shell(command)
        answer = host.run(f". {shlex.quote(secret)} && {command}" if secret else command)
        return answer.code, answer.out, answer.err

    return run


def _copy(folder: Path, host: SshHost, target: str) -> None:
    """Copy the contents of a folder into a folder on the cluster."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    there = shlex.quote(target)
    answer = host.run(f"mkdir -p {there} && tar -xzf - -C {there}", archive.getvalue())
    if answer.code:
        raise NemolaunchError(f"on {host.name}: {' '.join(answer.err.split())}")


def _tokenizer_files(plan: Plan, secrets: Secrets) -> dict[str, str]:
    """Return the files of a tokenizer that the cluster lacks, from the hub: this machine has token and network."""
    if plan.tokenizer is not None:
        return {}
    folder = Path(fetch_tokenizer(str(plan.job.model.hf_model_id), secrets.hf_token))
    found = files_of(folder, config=True)
    return {path.name: base64.b64encode(path.read_bytes()).decode() for path in found}
