"""Plan → running: prepares the run folder, starts the job, stops it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

from nemolaunch.errors import NemolaunchError
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir, end_step, write_json
from nemolaunch.system import processes
from nemolaunch.system.processes import GRACE_S
from nemolaunch.tokenizer import vocabulary

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


def finished_step(plan: Plan) -> int | None:
    """The step a run in this folder ended at, if that is as far as the plan goes."""
    step = end_step(plan.run, int(plan.values["max_steps"]))
    return step if plan.values["resume"] == "auto" else None


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
        if plan.values["index_mapping_dir"]:  # a container mounts only what exists
            Path(plan.values["index_mapping_dir"]).mkdir(parents=True, exist_ok=True)
        _require_idle(run)
        for stale in (*run.logs.glob("*.error.json"), run.local_end):
            stale.unlink(missing_ok=True)
    except OSError as error:
        raise NemolaunchError(f"{error.filename or run.root} cannot be written: {error.strerror}") from None
    folder = plan.tokenizer or fetch_tokenizer(str(plan.values["hf_model_id"]), hf_token)
    _copy_tokenizer(Path(folder), run.tokenizer)
    if plan.values.get("objective") == "mlm":
        plan = _with_mask_token(plan)
    plan.save()
    return plan


def _with_mask_token(plan: Plan) -> Plan:
    """Make the mask token that of the run's own tokenizer, from where checkpoints and exports have it.

    Raises:
        NemolaunchError: there is none; of a tokenizer that had to be fetched, this could not be seen before.
    """
    folder, source = plan.run.tokenizer, plan.values["hf_model_id"]
    known, named = vocabulary.words(folder), vocabulary.roles(folder)
    token = plan.values["mask_token"] or named.get(vocabulary.MASK)
    if token is None or (known is not None and token not in known):
        free = vocabulary.spare(known or (), named.values())[:2]
        hint = f"; --mask-token takes one of its tokens, as {' or '.join(free)}" if free else ""
        raise NemolaunchError(
            f"the tokenizer {source} has {f'no {token}' if token else 'no mask token'}{hint}"
        )
    vocabulary.name_mask_token(folder, token)
    return dataclasses.replace(plan, values={**plan.values, "mask_token": token})


def _require_idle(run: RunDir) -> None:
    """Refuse to start a second job in the folder of one that still runs."""
    running = sorted(processes.members(run.root))
    if running:
        numbers = ", ".join(map(str, running[:3])) + (", …" if len(running) > 3 else "")
        raise NemolaunchError(
            f"a job already runs in {run.root} (process {numbers}); "
            "end it, or give this one another --experiment or --output-dir"
        )


def fetch_tokenizer(hub_id: str, token: str | None) -> str:
    """Download the tokenizer's files once, here, rather than from every rank. Returns the folder.

    Raises:
        NemolaunchError: if the hub cannot be reached or refuses.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise NemolaunchError(
            "downloading a tokenizer needs huggingface_hub: pip install 'nemolaunch[train]'"
        ) from None
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


def note_end(run: RunDir, state: str, detail: str) -> None:
    """Keep how a run on this machine ended before its last step; what was said first holds.

    Ranks that are told to end fail in many ways; without the note these would be taken for the cause.
    """
    if not run.local_end.exists():
        write_json(run.local_end, {"state": state, "detail": detail})


class LocalJob:
    """A job running on this machine, as a process of NeMo-Run with torchrun and the ranks below it."""

    def __init__(self, plan: Plan, hf_token: str | None = None) -> None:
        self.run = plan.run
        self.world_size = plan.world_size
        environment = {**os.environ, **processes.marked(self.run.root)}
        if hf_token:
            environment["HF_TOKEN"] = hf_token
        with open(self.run.launcher_log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nemolaunch.launch.nemo_run_job", str(self.run.plan)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Exit code once the job has ended."""
        return self.process.poll()

    def stop(self) -> None:
        """End every process of the job: ask, wait a little, then kill. A second Ctrl-C kills at once."""
        try:
            if self.process.poll() is None:
                self.process.terminate()
                processes.wait_until(lambda: self.process.poll() is not None, GRACE_S + 2.0)
        finally:
            self.sweep()

    def sweep(self) -> None:
        """Kill what is left: torchrun, ranks, helper processes of ranks that died without ending them."""
        processes.kill(self.run.root)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
