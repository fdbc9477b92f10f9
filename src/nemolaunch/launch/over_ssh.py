"""Submits a plan to a cluster that this machine reaches with ssh, and follows the run from here."""

from __future__ import annotations

import base64
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nemolaunch.cli.views.watch import say, say_done, watch
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.facts import SECRET_NAMES, Facts, secrets_here
from nemolaunch.job import Job
from nemolaunch.launch import local
from nemolaunch.launch.ssh_host import SshHost, secrets_on
from nemolaunch.observe import slurm_run
from nemolaunch.planning import Plan
from nemolaunch.slurm import batch_job
from nemolaunch.system.plain_values import from_plain

ONHOST = "nemolaunch.launch.login_node"
AGAIN_S = 10.0  # before a lost connection is tried again
PATHS = ("output_dir", "index_mapping_dir", "nemo_model", "resume")


def look_there(host: SshHost, job: Job) -> tuple[Job, Facts]:
    """The job with paths as they are there, and what is to be seen from there.

    Raises:
        UsageError: the job does not go to Slurm.
        NemolaunchError: the host cannot be reached, or has no Python that is new enough.
    """
    if job.launch.executor != "slurm":
        raise UsageError("--ssh submits to Slurm: add --executor slurm, and leave --dev-run out")
    values = {name: job.get(name) for name in PATHS}
    values["output_dir"] = values["output_dir"] or f"runs/{job.launch.experiment}"
    job = job.with_values(**{name: _there(host, value) for name, value in values.items()})
    facts = from_plain(Facts, host.call(ONHOST, "look", send=job.values()))
    return job, replace(facts, secrets=facts.secrets | secrets_here())


def _there(host: SshHost, path: str | None) -> str | None:
    """A path as an absolute one there; words that are no paths stay."""
    if path is None or path in ("auto", "never"):
        return path
    return os.path.normpath(os.path.join(host.home, path[2:] if path.startswith("~/") else path))


def launch_over_ssh(plan: Plan, job: Job, host: SshHost) -> int:
    """Submit the plan there and, unless detached, follow it to its end. Returns its exit code."""
    console = Console(stderr=False)
    with tempfile.TemporaryDirectory() as home:
        number = _submit(console, plan, job.model.hf_token, host, Path(home))
    if not number:
        return 0
    say(console, f"job {number} is submitted: {host.name}:{batch_job.script_path(plan)}")
    hint = f"`nemolaunch status --ssh {host.name} {plan.folder}` shows it"
    if plan.values["detach"]:
        say(console, hint)
        return 0
    return _follow(console, host, plan.folder, int(plan.values["max_steps"]), hint)


def _submit(console: Console, plan: Plan, hf_token: str | None, host: SshHost, home: Path) -> str:
    """Prepare the run folder there, hand the plan to NeMo-Run here. Returns the job's id; empty if it is done."""
    file = home / "plan.json"
    plan.save(file)
    sent = {"plan": json.loads(file.read_text()), "tokenizer": _tokenizer_files(plan, hf_token)}
    done = host.call(ONHOST, "prepare", send=sent)
    if done["finished"] is not None:
        say_done(
            console, f"this run has already finished step {done['finished']}; raise --max-steps to go on"
        )
        return ""
    replace(plan, values=done["values"]).save(file)
    secrets = {name: os.environ[name] for name in SECRET_NAMES if os.environ.get(name)}
    if hf_token:
        secrets["HF_TOKEN"] = hf_token
    with secrets_on(host, secrets) as secret:
        before = f". {secret}" if secret else ""
        number, said = slurm_run.hand_over(file, {}, *host.account(), str(home / "nemorun"), before)
    host.call(ONHOST, "submitted", send={"folder": plan.folder, "job": number or "", "log": said})
    if number is None:
        raise NemolaunchError(f"the job was not submitted. {slurm_run.reason(said)}")
    return number


def _tokenizer_files(plan: Plan, hf_token: str | None) -> dict[str, str]:
    """Files of a tokenizer that is not there yet, from the hub: this machine has the token and the network."""
    if plan.tokenizer is not None:
        return {}
    folder = Path(local.fetch_tokenizer(str(plan.values["hf_model_id"]), hf_token))
    found = [folder / name for name in local.TOKENIZER_FILES if (folder / name).is_file()]
    return {path.name: base64.b64encode(path.read_bytes()).decode() for path in found}


def follow_over_ssh(host: SshHost, folder: str) -> int:
    """Show a run there until it is over. Returns its exit code."""
    answer = host.run(host.command("nemolaunch.cli.main", "status", "--json", folder))
    try:
        steps = int(json.loads(answer.out)["max_steps"])
    except (ValueError, KeyError):
        raise NemolaunchError(f"on {host.name}: {' '.join(answer.err.split())}") from None
    hint = f"`nemolaunch follow --ssh {host.name} {folder}` shows it again"
    return _follow(Console(), host, folder, steps, hint)


def _follow(console: Console, host: SshHost, folder: str, steps: int, hint: str) -> int:
    running = RemoteRun(host, folder, console)
    try:
        code = watch(console, steps, running)
    except KeyboardInterrupt:
        say(console, f"the job goes on; {hint}")
        return 130
    finally:
        running.close()
    if code:
        raise NemolaunchError(running.verdict)
    say_done(console, running.verdict)
    return 0


class RemoteRun:
    """A run elsewhere as `watch` sees it: reads what `nemolaunch follow --json` says there.

    A lost connection is made again, as often as it takes: the run does not depend on it.
    """

    def __init__(self, host: SshHost, folder: str, console: Console) -> None:
        self._host, self._folder, self._console = host, folder, console
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._again = 0.0
        self._rows: list[dict[str, Any]] = []
        self.verdict = ""

    def poll(self) -> int | None:
        """Its exit code; None while it goes on."""
        if self._process is None and time.monotonic() >= self._again:
            self._connect()
        elif self._process is not None and self._process.poll() is not None and self._lines.empty():
            say(self._console, f"the connection to {self._host.name} is lost; trying again …")
            self._process, self._again = None, time.monotonic() + AGAIN_S
        while not self._lines.empty():
            what = self._lines.get()
            if "row" in what:
                self._rows.append(what["row"])
            elif "say" in what:
                say(self._console, what["say"])
            elif "end" in what:
                self.verdict = what["text"]
                return int(what["end"])
        return None

    def new_rows(self) -> list[dict[str, Any]]:
        """Rows of its metrics since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        """End the connection, not the run."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _connect(self) -> None:
        self._process = self._host.popen("nemolaunch.cli.main", "follow", "--json", self._folder)
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:  # a login message, or half a line where the connection broke
                continue
