"""Build Megatron's index ahead of a job, in a process of its own, so that no GPU waits for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nemolaunch.data import index_cache
from nemolaunch.data.index_files import remove_incomplete
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.launching.prepare import fetch_tokenizer, make_index_folder
from nemolaunch.launching.secrets import Secrets
from nemolaunch.planning import Plan
from nemolaunch.system.atomic_files import sync_file, sync_folder, temporary_name

PROGRAM = "nemolaunch.nemo2.build_index"
LAST_LINES = 5  # of the program's output, if it fails


@dataclass(frozen=True)
class BuiltIndex:
    """The index of a job's data: its folder, and the files and bytes that were added; none if it was complete."""

    folder: Path
    num_files: int
    num_bytes: int


def prepare_index(plan: Plan, secrets: Secrets | None = None) -> BuiltIndex:
    """Build what is missing of the index that the job reads. Its files appear in the folder once all are complete.

    Raises:
        UsageError: the job trains on a stream, which has no index.
        NemolaunchError: the index cannot be built, or the tokenizer is not available.
    """
    if plan.index_folder is None:
        raise UsageError("--data-mode stream reads rows as they come: there is no index to build")
    folder = Path(plan.index_folder)
    try:
        make_index_folder(plan)
        remove_incomplete(folder)
        with _copy_of(folder) as temporary:
            _build(replace(plan, index_folder=str(temporary)), secrets or Secrets())
            added = _move_new(temporary, folder)
    except OSError as error:
        raise NemolaunchError(f"cannot write to {error.filename or folder}: {error.strerror}") from None
    return BuiltIndex(folder, len(added), sum(path.stat().st_size for path in added))


@contextmanager
def _copy_of(folder: Path) -> Iterator[Path]:
    """Yield a folder beside it with the same files, as links where the file system has them."""
    temporary = temporary_name(folder)
    temporary.mkdir()
    try:
        for file in folder.iterdir():
            try:
                os.link(file, temporary / file.name)
            except OSError:
                shutil.copy2(file, temporary / file.name)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(plan: Plan, secrets: Secrets) -> None:
    if plan.tokenizer is None:
        plan = replace(plan, tokenizer=fetch_tokenizer(str(plan.job.model.hf_model_id), secrets.hf_token))
    with tempfile.TemporaryDirectory() as folder:
        file = plan.save(Path(folder, "plan.json"))
        done = subprocess.run(
            [sys.executable, "-m", PROGRAM, str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **plan.variables},
            check=False,
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-LAST_LINES:]
        raise NemolaunchError(
            "\n  ".join([f"the index cannot be built (exit code {done.returncode}):", *last])
        )


def _move_new(source: Path, target: Path) -> list[Path]:
    """Move the files that are not in the target yet; a dataset's description, which names its index complete, last."""
    new = [path for path in source.iterdir() if not (target / path.name).exists()]
    new.sort(key=lambda path: path.name.endswith("description.txt"))
    for path in new:
        sync_file(path)
        os.replace(path, target / path.name)
    sync_folder(target)
    return [target / path.name for path in new if path.name != index_cache.RECORD]
