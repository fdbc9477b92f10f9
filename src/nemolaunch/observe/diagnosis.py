"""Why a run failed: the first rank that did, its node, the cause, and what to change.

Looks at what the ranks wrote down, at what srun said of tasks that died without a word, and at Slurm's state
of the job; of each log only the end is read.
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
from nemolaunch.observe.metrics import tail_rows
from nemolaunch.planning import Plan
from nemolaunch.run.attempts import Start, expand_nodes, host_in, said_during, starts, tail
from nemolaunch.run.folder import RunDir

FULL_BYTES = 16 << 20
_IN_ORDER = "nemolaunch: left with code 0 "  # as guard.sh says it
# srun names tasks when they end: the first that did not end well is the cause, most of the rest were ended for it
_TASK = re.compile(r"^srun: error: (\S+?): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
_ENDED_FOR_IT = re.compile(r"Terminated|exit code 143|exit code 137$")
_STACKS = re.compile(r"^Timeout \(\d+:\d\d:\d\d", re.MULTILINE)
_SLURM_SAYS = re.compile(r"^(?:slurmstepd|srun)\S*:.*(?:DUE TO|CANCELLED|[Oo]om).*$", re.MULTILINE)

_CANCELLED = re.compile(r"\*\*\* JOB \d+ ON \S+ CANCELLED AT \S+ \*\*\*")  # unlike `… DUE TO TIME LIMIT ***`


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is known of a failure.

    Attributes:
        what: the first failure in its own words.
        rank, node: where it happened; None where it is not known.
        place: what to call the node where it has no name.
        cause: the known cause it matches, or None.
        log: where to read on.
        stacks: ranks that wrote their stacks because nothing moved.
    """

    what: str
    rank: int | None
    node: str | None
    cause: Cause | None
    log: Path
    stacks: tuple[int, ...] = ()
    place: str = "that node"

    def lines(self) -> list[str]:
        """The diagnosis for a terminal."""
        return [f"{'failed':<8}{self.what}", *self.details()]

    def as_values(self) -> dict[str, Any]:
        """The diagnosis as JSON can hold it."""
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
            "log": str(self.log),
        }

    def details(self) -> list[str]:
        """Where, why, what to change, where to read on."""
        where = f"rank {self.rank}" if self.rank is not None else ""
        where += f" on {self.node}" if self.node else ""
        rows = [("first", where.strip())] if where else []
        if self.cause:
            node = self.node or self.place
            rows.append(("cause", f"{self.cause.meaning.format(node=node)} [{self.cause.code}]"))
            rows.append(("change", self.cause.change.format(node=node)))
        if self.stacks:
            rows.append(("stacks", f"in the logs of {len(self.stacks)} ranks"))
        rows.append(("log", str(self.log)))
        return [f"{name:<8}{value}" for name, value in rows]


@dataclass(frozen=True)
class _Death:
    """A task that srun saw end badly."""

    node: str
    rank: int
    how: str


def diagnose(run: RunDir, exit_code: int = 1, start: Start | None = None) -> Diagnosis:
    """The first failure of one start of a run and its cause; of the newest where none is given."""
    plan = Plan.of_run(run)
    start = start or next(iter(starts(run)[-1:]), None)
    output, ranks_output = _output_of(run, "sbatch_*", start), _output_of(run, "log-*", start)
    said = said_during(output, start) if output else ""
    if start and _IN_ORDER in said:
        return _left_in_order(run, output or run.launcher_log)
    by_rank = plan.job.launch.launcher == "srun"
    deaths = [death for death in _deaths(said) if not _ENDED_FOR_IT.search(death.how)] if by_rank else []
    first = failure(run, exit_code, start)
    rank = _rank_in(first.message)
    records = error_records(run, start)
    echoes = {int(record["rank"]) for record in records if is_echo(record)}
    if deaths and (rank is None or len(echoes) == len(records)):
        # A rank that could still say that another one has gone may be seen to end before that one
        death = next((death for death in deaths if death.rank not in echoes), deaths[0])
        rank = death.rank
        what, log = f"rank {rank}: {death.how}", run.rank_log(rank)
    elif rank is None and (slurm := _SLURM_SAYS.findall(said)):
        what, log = slurm[0], output or first.log
    else:
        what, log = first.message, first.log
        if rank is None and output and "exit code" in what:
            log = output
    own = said_during(run.rank_log(rank), start) if rank is not None else ""
    node = next((d.node for d in deaths if d.rank == rank), None)
    if node is None and rank is not None and start:
        node = host_in(own) or _node_by_place(plan, start, rank)
    # Before a rank has its own log, as while its container starts, its words are in the step's common log
    texts = (what, "\n".join(own.splitlines()[-60:]), said, tail(ranks_output) if ranks_output else "")
    cause = next((cause for text in texts if (cause := cause_of(text))), None)
    if cause is None and (full := _full_disk(run)):
        what, cause = f"{what}; {full}", cause_of(os.strerror(errno.ENOSPC))
    return Diagnosis(
        what=what,
        rank=rank,
        node=node,
        cause=cause,
        log=log,
        stacks=_ranks_with_stacks(run, start) if cause and cause.code == "hang" else (),
        place="that node" if plan.submission else "this machine",
    )


def _full_disk(run: RunDir) -> str | None:
    """What shows that the run's own file system is full: on that, a rank cannot even say so."""
    free_bytes = shutil.disk_usage(run.root).free
    if free_bytes < FULL_BYTES or any(not path.stat().st_size for path in run.logs.glob("rank*.error.json")):
        return f"the file system of {run.root} has {free_bytes / 1e6:,.0f} MB left"
    return None


def _left_in_order(run: RunDir, log: Path) -> Diagnosis:
    """Of a start in which nothing failed: why it did not go on."""
    texts = [str(row.get("text", "")) for row in tail_rows(run.metrics) if row.get("event") == "left"]
    what = f"left in order: {texts[-1] if texts else 'it was asked to'}"
    return Diagnosis(what=what, rank=None, node=None, cause=cause_of(what), log=log)


def newest_failure(run: RunDir, alive: bool) -> Diagnosis | None:
    """Of a run on Slurm: why its newest start failed, or while that is alive the one before; None if none did.

    Starts that somebody cancelled are passed over.
    """
    over = starts(run)[: -1 if alive else None]
    while over and _was_cancelled(run, over[-1]):
        over.pop()
    if not over:
        return None
    output = _output_of(run, "sbatch_*", over[-1])
    if output and _IN_ORDER in said_during(output, over[-1]):
        return None
    return diagnose(run, start=over[-1])


def _was_cancelled(run: RunDir, start: Start) -> bool:
    """Whether a start ended because somebody cancelled its job."""
    output = _output_of(run, "sbatch_*", start)
    return output is not None and _CANCELLED.search(said_during(output, start)) is not None


def newest_output(run: RunDir) -> Path | None:
    """The newest output of a batch script of the run, or None."""
    return _output_of(run, "sbatch_*", None)


def _output_of(run: RunDir, kind: str, start: Start | None) -> Path | None:
    """What a batch script or its ranks wrote in a start; the newest of all where none is given."""
    endings = {"sbatch_*": f"_{start.job}", "log-*": f"_{start.job}_{start.restart}"} if start else {}
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


def _ranks_with_stacks(run: RunDir, start: Start | None) -> tuple[int, ...]:
    found = []
    for path in run.logs.glob("rank*.log"):
        rank = path.stem[4:]
        if rank.isdigit() and _STACKS.search(said_during(path, start)):
            found.append(int(rank))
    return tuple(sorted(found))


def _node_by_place(plan: Plan, start: Start, rank: int) -> str | None:
    """The host of a rank that did not say so itself, by its place in the list of nodes."""
    nodes = expand_nodes(start.nodes)
    number = rank // max(1, plan.num_gpus)
    return nodes[number] if number < len(nodes) else None
