"""Why a run failed: the first rank that failed, its node, the cause, and what to change.

Uses the ranks' error records, srun's messages about tasks that died silently, and Slurm's messages about the
job. Only the end of each log is read.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.observe.failure import error_records, failure, is_echo
from nemolaunch.observe.failure_patterns import Cause, cause_of
from nemolaunch.planning import Plan
from nemolaunch.run.attempts import Attempt, attempts, expand_nodes, host_in, output_during, tail
from nemolaunch.run.folder import RunDir
from nemolaunch.run.metrics import tail_rows

FULL_BYTES = 16 << 20
# as guard.sh writes it; `left` until version 0.1
_CLEAN_EXIT = re.compile(r"nemolaunch: (?:exited|left) with code 0 ")
# srun names tasks when they end: the first that failed is the cause, most of the others were killed because of it
_TASK = re.compile(r"^srun: error: (\S+?): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
_KILLED_AFTERWARDS = re.compile(r"Terminated|exit code 143|exit code 137$")
_STACKS = re.compile(r"^Timeout \(\d+:\d\d:\d\d", re.MULTILINE)
_SLURM_SAYS = re.compile(
    r"^(?:(?:slurmstepd|srun)\S*:.*(?:DUE TO|CANCELLED|[Oo]om)|nemolaunch: the set-up of the job failed).*$",
    re.MULTILINE,
)

_CANCELLED = re.compile(r"\*\*\* JOB \d+ ON \S+ CANCELLED AT \S+ \*\*\*")  # unlike `… DUE TO TIME LIMIT ***`


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is known about a failure.

    Attributes:
        what: the first error, verbatim.
        rank, node: where it happened; None if not known.
        place: what to call the node if its name is not known.
        cause: the known cause it matches, or None.
        log: the log with the details.
        stacks: ranks that dumped their stacks because of a hang.
        then: errors that followed from the first one in that rank, first to last.
    """

    what: str
    rank: int | None
    node: str | None
    cause: Cause | None
    log: Path
    stacks: tuple[int, ...] = ()
    place: str = "that node"
    then: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the diagnosis as lines for a terminal."""
        return [f"{'failed':<8}{self.what}", *self.details()]

    def as_values(self) -> dict[str, Any]:
        """Return the diagnosis as values that JSON can hold."""
        node = self.node or self.place
        cause = self.cause
        return {
            "what": self.what,
            "rank": self.rank,
            "node": self.node,
            "cause": cause.code if cause else None,
            "meaning": cause.meaning.format(node=node) if cause else None,
            "change": cause.change.format(node=node) if cause else None,
            "stacks": list(self.stacks),
            "then": list(self.then),
            "log": str(self.log),
        }

    def details(self) -> list[str]:
        """Return lines with the place, the cause, the change to make, and the log."""
        where = f"rank {self.rank}" if self.rank is not None else ""
        where += f" on {self.node}" if self.node else ""
        rows = [("first", where.strip())] if where else []
        if self.cause:
            node = self.node or self.place
            rows.append(("cause", f"{self.cause.meaning.format(node=node)} [{self.cause.code}]"))
            rows.append(("change", self.cause.change.format(node=node)))
        rows += [("then", error) for error in self.then]
        if self.stacks:
            rows.append(("stacks", f"in the logs of {len(self.stacks)} ranks"))
        rows.append(("log", str(self.log)))
        return [f"{name:<8}{value}" for name, value in rows]


@dataclass(frozen=True)
class _Death:
    """A task that failed, according to srun."""

    node: str
    rank: int
    how: str


def diagnose(run: RunDir, exit_code: int = 1, attempt: Attempt | None = None) -> Diagnosis:
    """Return the first failure of an attempt and its cause; of the latest attempt if none is given."""
    plan = Plan.of_run(run)
    attempt = attempt or next(iter(attempts(run)[-1:]), None)
    output, ranks_output = _output_of(run, "sbatch_*", attempt), _output_of(run, "log-*", attempt)
    said = output_during(output, attempt) if output else ""
    if attempt and _CLEAN_EXIT.search(said):
        return _clean_exit(run, output or run.launcher_log)
    by_rank = plan.job.launch.launcher == "srun"
    dead = list(_deaths(said)) if by_rank else []
    deaths = [death for death in dead if not _KILLED_AFTERWARDS.search(death.how)]
    first = failure(run, exit_code, attempt)
    rank = _rank_in(first.message)
    records = error_records(run, attempt)
    echoes = {int(record["rank"]) for record in records if is_echo(record)}
    then: tuple[str, ...] = ()
    if deaths and (rank is None or len(echoes) == len(records)):
        # A rank that raised because another one had gone may have ended before srun saw that one end
        death = next((death for death in deaths if death.rank not in echoes), deaths[0])
        rank = death.rank
        what, log = f"rank {rank}: {death.how}", run.rank_log(rank)
    elif rank is None and (slurm := _SLURM_SAYS.findall(said)):
        what, log = slurm[0], output or first.log
    elif rank is None and dead and not records:  # all were ended by a signal before they could catch it
        rank = dead[0].rank
        what, log = f"rank {rank}: {dead[0].how}", output or first.log
    else:
        what, log, then = first.message, first.log, first.then
        if rank is None and output and "exit code" in what:
            log = output
    own = output_during(run.rank_log(rank), attempt) if rank is not None else ""
    node = next((d.node for d in dead if d.rank == rank), None)
    if node is None and rank is not None and attempt:
        node = host_in(own) or _node_by_place(plan, attempt, rank)
    # Until a rank opens its own log, e.g. while its container starts, its output goes to the step's common log
    texts = (what, *then, "\n".join(own.splitlines()[-60:]), said, tail(ranks_output) if ranks_output else "")
    cause = next((cause for text in texts if (cause := cause_of(text))), None)
    if cause is None and (full := _full_disk(run)):
        what, cause = f"{what}; {full}", cause_of(os.strerror(errno.ENOSPC))
    return Diagnosis(
        what=what,
        rank=rank,
        node=node,
        cause=cause,
        log=log,
        stacks=_ranks_with_stacks(run, attempt) if cause and cause.code == "hang" else (),
        place="that node" if plan.submission else "this machine",
        then=then,
    )


def _full_disk(run: RunDir) -> str | None:
    """Return evidence that the run's file system is full, or None: a rank cannot record that error itself."""
    free_bytes = shutil.disk_usage(run.root).free
    if free_bytes < FULL_BYTES or any(not path.stat().st_size for path in run.logs.glob("rank*.error.json")):
        return f"the file system of {run.root} has {free_bytes / 1e6:,.0f} MB left"
    return None


def _clean_exit(run: RunDir, log: Path) -> Diagnosis:
    """Return why an attempt in which nothing failed ended before the last step."""
    texts = [str(row.get("text", "")) for row in tail_rows(run.metrics) if row.get("event") == "left"]
    what = f"exited cleanly: {texts[-1] if texts else 'it was asked to exit'}"
    return Diagnosis(what=what, rank=None, node=None, cause=cause_of(what), log=log)


def newest_failure(run: RunDir, alive: bool) -> Diagnosis | None:
    """Return why the latest attempt on Slurm that is over failed; None if it did not fail.

    Attempts that were cancelled are ignored.

    Args:
        alive: whether the latest attempt is still running; the one before is then diagnosed.
    """
    over = attempts(run)[: -1 if alive else None]
    while over and _was_cancelled(run, over[-1]):
        over.pop()
    if not over:
        return None
    output = _output_of(run, "sbatch_*", over[-1])
    if output and _CLEAN_EXIT.search(output_during(output, over[-1])):
        return None
    return diagnose(run, attempt=over[-1])


def _was_cancelled(run: RunDir, attempt: Attempt) -> bool:
    """Return whether an attempt ended because its job was cancelled."""
    output = _output_of(run, "sbatch_*", attempt)
    return output is not None and _CANCELLED.search(output_during(output, attempt)) is not None


def newest_output(run: RunDir) -> Path | None:
    """Return the newest output of a batch script of the run, or None."""
    return _output_of(run, "sbatch_*", None)


def _output_of(run: RunDir, kind: str, attempt: Attempt | None) -> Path | None:
    """Return the output file of the batch script or of its ranks in an attempt; the newest if none is given."""
    endings = {"sbatch_*": f"_{attempt.job}", "log-*": f"_{attempt.job}_{attempt.restart}"} if attempt else {}
    found = list(run.nemo_run.glob(f"experiments/*/*/*/{kind}{endings.get(kind, '')}.out"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _deaths(said: str) -> Iterator[_Death]:
    for node, tasks, how in _TASK.findall(said):
        for part in tasks.split(","):
            low, _, high = part.partition("-")
            for rank in range(int(low), int(high or low) + 1):
                yield _Death(node, rank, how)


def _rank_in(message: str) -> int | None:
    found = re.match(r"rank (\d+)", message)
    return int(found[1]) if found else None


def _ranks_with_stacks(run: RunDir, attempt: Attempt | None) -> tuple[int, ...]:
    found = []
    for path in run.logs.glob("rank*.log"):
        rank = path.stem[4:]
        if rank.isdigit() and _STACKS.search(output_during(path, attempt)):
            found.append(int(rank))
    return tuple(sorted(found))


def _node_by_place(plan: Plan, attempt: Attempt, rank: int) -> str | None:
    """Return the host of a rank that did not log it, by the rank's position in the list of nodes."""
    nodes = expand_nodes(attempt.nodes)
    number = rank // max(1, plan.num_gpus)
    return nodes[number] if number < len(nodes) else None
