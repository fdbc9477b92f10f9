"""Prepare a run folder: logs, a clean copy of the tokenizer, the plan."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from nemolaunch.data import index_cache
from nemolaunch.errors import NemolaunchError
from nemolaunch.launching.secrets import Secrets
from nemolaunch.planning import Plan
from nemolaunch.run.folder import RunDir, end_step
from nemolaunch.system import folder_identity, processes
from nemolaunch.system.atomic_files import atomic_folder, remove_temporaries, write_json
from nemolaunch.tokenizer import completion, files, library, vocabulary


def finished_step(plan: Plan) -> int | None:
    """Return the step at which the run in this folder finished, if the plan asks for no more; else None."""
    step = end_step(plan.run, plan.max_steps)
    return step if plan.job.checkpoint.resume == "auto" else None


def prepare(plan: Plan, secrets: Secrets | None = None, tokenizer: Path | None = None) -> None:
    """Create the run folder: logs, a clean copy of the tokenizer, the plan.

    With `--resume never`, earlier checkpoints are moved aside, so that they cannot be mistaken for the new run's. The
    tokenizer's files are copied because NeMo cannot save a folder with subfolders (which `hf download --local-dir`
    creates) into a checkpoint, and only warns.

    Args:
        tokenizer: folder of a tokenizer that the plan only knows by its hub id; downloaded by default.

    Raises:
        NemolaunchError: the folder cannot be written, a job is running in it, or the tokenizer is not available.
    """
    run = plan.run
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
        make_index_folder(plan)
        _require_idle(run)
        for place in (run.root, run.logs, run.slurm):
            remove_temporaries(place)  # of a launch or rank that was killed
        for stale in (*run.logs.glob("*.error.json"), *run.logs.glob("failure-*.told"), run.local_end):
            stale.unlink(missing_ok=True)
        if plan.job.checkpoint.resume == "never" and run.checkpoints.is_dir():
            run.checkpoints.rename(_free(run.root / f"checkpoints-before-{int(time.time())}"))
        if folder_identity.is_copy(run.root):
            run.mlflow_run.unlink(missing_ok=True)  # it is that of the run this is a copy of
    except OSError as error:
        raise NemolaunchError(f"cannot write to {error.filename or run.root}: {error.strerror}") from None
    token = secrets.hf_token if secrets else None
    folder = Path(plan.tokenizer or tokenizer or fetch_tokenizer(str(plan.job.model.hf_model_id), token))
    library.check_code(folder, plan.job.model.trust_remote_code)  # a plan may only know its id
    _copy_tokenizer(folder, run.tokenizer)
    if plan.job.objective.objective == "mlm":
        _name_mask_token(plan)
    plan.save()


def _free(path: Path) -> Path:
    """Return the path, or the first one with a number that is free."""
    names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())


def make_index_folder(plan: Plan) -> None:
    """Create the folder of Megatron's index, and record which data it is for. A container mounts only what exists."""
    if plan.index_folder is None:
        return
    folder = Path(plan.index_folder)
    folder.mkdir(parents=True, exist_ok=True)
    if index_cache.recorded(folder) != plan.digests:
        write_json(folder / index_cache.RECORD, index_cache.record(plan.digests))


def _name_mask_token(plan: Plan) -> None:
    """Set the mask token in the run's copy of the tokenizer, which ranks, checkpoints and exports use.

    Raises:
        NemolaunchError: the tokenizer has no such token; for a downloaded tokenizer, this is the first check.
    """
    folder, source = plan.run.tokenizer, plan.job.model.hf_model_id
    known = library.vocabulary_of(folder, trust_remote_code=plan.job.model.trust_remote_code)
    words, named = (known.ids, known.roles) if known else ({}, {})
    token = plan.job.objective.mask_token or named.get(vocabulary.MASK)
    if token is None or (known is not None and token not in words):
        free = vocabulary.spare(words, named.values())[:2]
        hint = f"; set --mask-token to one of its tokens, such as {' or '.join(free)}" if free else ""
        raise NemolaunchError(
            f"the tokenizer {source} has {f'no {token}' if token else 'no mask token'}{hint}"
        )
    vocabulary.name_mask_token(folder, token)


def _require_idle(run: RunDir) -> None:
    """Refuse to start a second job in a folder in which one is running."""
    running = sorted(processes.members(run.root))
    if running:
        numbers = ", ".join(map(str, running[:3])) + (", …" if len(running) > 3 else "")
        raise NemolaunchError(
            f"a job is already running in {run.root} (process {numbers}); "
            "end it first, or use another --experiment or --output-dir for this run"
        )


def fetch_tokenizer(hub_id: str, token: str | None) -> str:
    """Download the tokenizer's files once, instead of from every rank. Return the folder.

    Raises:
        NemolaunchError: the hub cannot be reached or refuses.
    """
    try:
        return str(files.fetch(hub_id, token))
    except NemolaunchError as error:
        raise NemolaunchError(f"--hf-model-id: {error}") from None


def _copy_tokenizer(source: Path, target: Path) -> None:
    """Replace a folder with one that has only the tokenizer's files, and what transformers needs to load it."""
    if source.resolve() != target.resolve():
        with atomic_folder(target) as folder:
            completion.copy(source, folder)
