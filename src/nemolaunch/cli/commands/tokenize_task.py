"""One task of `nemolaunch tokenize --executor slurm`: `python -m … WORK_FOLDER NUMBER`. Not for the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nemolaunch.cli.views.render import guarded
from nemolaunch.tokenization import proof, sample
from nemolaunch.tokenization.request import EngineMismatch, TokenizeRequest
from nemolaunch.tokenization.units.tasks import Task, do_task
from nemolaunch.tokenizer.library import cache_folder


@guarded
def main(argv: list[str] | None = None) -> int:
    """Do the units of a task. Return the exit code."""
    folder, number, workers = argv if argv is not None else sys.argv[1:]
    count = int(workers) or len(os.sched_getaffinity(0))
    do_task(Path(folder), int(number), count, _engine, _distrust, _say)
    return 0


def _engine(task: Task) -> str:
    request, first = task.work.request, task.units[0]

    def texts() -> list[str]:
        return sample.texts(list(first.sources), first.columns)

    return proof.choose(request.engine, request.spec, cache_folder(), texts, _say)


def _distrust(request: TokenizeRequest, error: EngineMismatch) -> None:
    proof.remember(request.engine, request.spec, cache_folder(), str(error))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(None))
