"""Units as tasks that are written into the folder of a run, for processes of other machines to read and do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemolaunch.errors import NemolaunchError
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.json_files import read_json
from nemolaunch.system.plain_values import from_plain, to_plain
from nemolaunch.tokenization.request import EngineMismatch, RecordRefused, TokenizeRequest
from nemolaunch.tokenization.units.unit import MIN_UNIT_BYTES, UNIT_BYTES, Unit
from nemolaunch.tokenization.units.work import UnitWork, do_unit, result_of
from nemolaunch.tokenization.worker_pool import worker_pool

if TYPE_CHECKING:
    from nemolaunch.tokenization.flow import Workers
    from nemolaunch.tokenization.setup import WorkerSetup

# Slurm's own limit of the tasks of an array (MaxArraySize) is 1001 if a site does not set another
MOST_TASKS = 1000
# So that all nodes finish at about the same time
TASKS_EACH = 8
FOLDER = "tasks"


@dataclass(frozen=True)
class Task:
    """Units that one process does, one after another, each with all cores of its machine."""

    work: UnitWork
    units: tuple[Unit, ...]


def unit_bytes(total: int, num_nodes: int) -> int:
    """Return how large the units of an input should be, whose tasks use a whole node each."""
    return max(MIN_UNIT_BYTES, min(total // num_nodes, max(UNIT_BYTES, total // (num_nodes * TASKS_EACH))))


def undone(work: UnitWork, units: list[Unit]) -> list[Unit]:
    """Return the units that have no result."""
    return [unit for unit in units if not result_of(work, unit).exists()]


def write_tasks(work: UnitWork, units: list[Unit]) -> int:
    """Write a task for each unit, or for several if there are many. Return the number of tasks."""
    num_tasks = min(len(units), MOST_TASKS)
    for number in range(num_tasks):
        task = Task(work, tuple(units[number::num_tasks]))
        write_json(_path(work.request.work_folder, number), to_plain(task), durable=False)
    return num_tasks


def _path(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:06d}.json"


def do_task(
    folder: Path,
    number: int,
    workers: int,
    choose: Callable[[Task], str],
    distrust: Callable[[TokenizeRequest, EngineMismatch], None],
    tell: Callable[[str], None],
) -> None:
    """Do the units of a task.

    Args:
        folder: the work folder of the run.
        choose: returns the engine, given the task.
        distrust: called if the engine turns out to differ from the reference.

    Raises:
        NemolaunchError: there is no such task, or it failed; what to do is said.
        RecordRefused: a record is not a document, in a run that stops at such.
    """
    try:
        task = from_plain(Task, read_json(_path(folder, number)))
    except (OSError, ValueError) as error:
        raise NemolaunchError(
            f"task {number} of {folder} cannot be read: {error}; all machines need the same paths, on a file system"
            " that they share"
        ) from None
    request = replace(task.work.request, engine=choose(task), workers=workers)
    work, rejects = replace(task.work, request=request), 0

    @contextmanager
    def pool(setup: WorkerSetup) -> Iterator[Workers]:
        with worker_pool(workers, setup) as found:
            yield found

    for unit in task.units:
        try:
            found = do_unit(work, unit, pool)
        except EngineMismatch as error:
            distrust(request, error)
            # What other tasks have done with this engine is not trusted either: the next run starts over
            (folder / "plan.json").unlink(missing_ok=True)
            raise NemolaunchError(f"{error}; run the same command again, which uses the reference") from None
        rejects += found
        tell(f"{unit}: done" + (f", {found:,} records are not documents" if found else ""))
    if rejects and request.on_error == "stop":
        raise RecordRefused(
            f"{rejects:,} records are not documents; run the same command with --executor local, which joins what is"
            " done and names the first of them, or with --on-error skip"
        )
