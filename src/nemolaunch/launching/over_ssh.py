"""Submits a plan to a cluster that this machine reaches with ssh."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.facts import SECRET_NAMES, Facts, secrets_here
from nemolaunch.job import Job
from nemolaunch.launching.on_slurm import REQUEUE, write_experiment
from nemolaunch.launching.prepare import fetch_tokenizer
from nemolaunch.launching.secrets import Secrets
from nemolaunch.launching.ssh_host import SshHost, secrets_on
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job, submission
from nemolaunch.system.plain_values import from_plain
from nemolaunch.tokenizer.files import files_of

LOGIN_NODE = "nemolaunch.launching.login_node"
PATHS = ("output_dir", "index_mapping_dir", "nemo_model", "resume")


@dataclass(frozen=True)
class Submitted:
    """The result of a submission: the job's id, or the step at which the run had finished already."""

    job: str = ""
    finished: int | None = None


def look_there(host: SshHost, job: Job) -> tuple[Job, Facts]:
    """Return the job with its paths as they are on the cluster, and the facts seen from there.

    Raises:
        UsageError: the job does not go to Slurm.
        NemolaunchError: the host cannot be reached, or has no Python that is new enough.
    """
    if job.launch.executor != "slurm":
        raise UsageError("--ssh submits to Slurm: add --executor slurm, and drop --dev-run")
    values = {name: job.get(name) for name in PATHS}
    values["output_dir"] = values["output_dir"] or f"runs/{job.launch.experiment}"
    job = job.with_values(**{name: _there(host, value) for name, value in values.items()})
    facts = from_plain(Facts, host.call(LOGIN_NODE, "look", send=job.values()))
    return job, replace(facts, secrets=facts.secrets | secrets_here())


def _there(host: SshHost, path: str | None) -> str | None:
    """Return a path as an absolute one there; words that are not paths stay."""
    if path is None or path in ("auto", "never"):
        return path
    return os.path.normpath(os.path.join(host.home, path[2:] if path.startswith("~/") else path))


def submit(plan: Plan, secrets: Secrets, host: SshHost, tell: Callable[[str], None]) -> Submitted:
    """Prepare the run folder there, have NeMo-Run write the job here, copy it over and hand it to sbatch there.

    Raises:
        NemolaunchError: the host cannot be reached, the folder cannot be prepared, or Slurm refuses the job.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = plan.save(home / "plan.json")
        sent = {"plan": json.loads(file.read_text()), "tokenizer": _tokenizer_files(plan, secrets)}
        done = host.call(LOGIN_NODE, "prepare", send=sent)
        for text in done["told"]:
            tell(text)
        if done["finished"] is not None:
            return Submitted(finished=done["finished"])
        log = write_experiment(file, home / "nemorun")
        _copy(home / "nemorun" / "experiments", host, str(plan.run.nemo_run / "experiments"))
    exported = {name: os.environ[name] for name in SECRET_NAMES if os.environ.get(name)}
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
    """Return a shell there that has the secrets of a file."""

    def run(command: str) -> tuple[int, str, str]:
        answer = host.run(f". {shlex.quote(secret)} && {command}" if secret else command)
        return answer.code, answer.out, answer.err

    return run


def _copy(folder: Path, host: SshHost, target: str) -> None:
    """Copy the contents of a folder into one there."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    there = shlex.quote(target)
    answer = host.run(f"mkdir -p {there} && tar -xzf - -C {there}", archive.getvalue())
    if answer.code:
        raise NemolaunchError(f"on {host.name}: {' '.join(answer.err.split())}")


def _tokenizer_files(plan: Plan, secrets: Secrets) -> dict[str, str]:
    """Return files of a tokenizer that is not there yet, from the hub: this machine has the token and the network."""
    if plan.tokenizer is not None:
        return {}
    folder = Path(fetch_tokenizer(str(plan.job.model.hf_model_id), secrets.hf_token))
    found = files_of(folder, config=True)
    return {path.name: base64.b64encode(path.read_bytes()).decode() for path in found}
