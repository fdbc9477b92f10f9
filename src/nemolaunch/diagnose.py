"""Why a run failed: the first rank that did, its node, the cause, and what to change.

Looks at what the ranks wrote down, at what srun said of tasks that died without a word, and at Slurm's state
of the job; of each log only the end is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nemolaunch.causes import Cause, cause_of
from nemolaunch.failure import error_records, failure, is_echo
from nemolaunch.plan import Plan
from nemolaunch.rundir import START_LINE, RunDir

TAIL_BYTES = 65536
# srun names a task when it ends: the first one that did not end well is the cause, the rest were ended for it
_TASK = re.compile(r"^srun: error: (\S+?): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
_ENDED_FOR_IT = re.compile(r"Terminated|exit code 143|exit code 137$")
_STACKS = re.compile(r"^Timeout \(\d+:\d\d:\d\d", re.MULTILINE)
_SLURM_SAYS = re.compile(r"^(?:slurmstepd|srun)\S*:.*(?:DUE TO|CANCELLED|[Oo]om).*$", re.MULTILINE)


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


def diagnose(run: RunDir, exit_code: int = 1) -> Diagnosis:
    """The first failure of the newest start of a run, and its cause."""
    plan = Plan.load(run.plan)
    output = newest_output(run)
    said = last_start(tail(output)) if output else ""
    deaths = [death for death in _deaths(said) if not _ENDED_FOR_IT.search(death.how)]
    stacks = tuple(sorted(_ranks_with_stacks(run)))
    first = failure(run, exit_code)
    rank = _rank_in(first.message)
    echoes = all(is_echo(record) for record in error_records(run))
    if deaths and (rank is None or echoes):
        rank = deaths[0].rank
        what, log = f"rank {rank}: {deaths[0].how}", run.rank_log(rank)
    elif rank is None and (slurm := _SLURM_SAYS.findall(said)):
        what, log = slurm[0], output or first.log
    else:
        what, log = first.message, first.log
        if rank is None and output and "exit code" in what:
            log = output
    node = next((d.node for d in deaths if d.rank == rank), None)
    if node is None and rank is not None and plan.submission:
        node = _node_of(plan, run, rank)
    cause = _cause(what, run, rank, said)
    place = "that node" if plan.submission else "this machine"
    return Diagnosis(what=what, rank=rank, node=node, cause=cause, log=log, stacks=stacks, place=place)


def _cause(what: str, run: RunDir, rank: int | None, said: str) -> Cause | None:
    """By the failure's own words, the rank's last lines, what srun and Slurm said, what tasks said early.

    Before a rank has its own log, as while its container starts, its words are in the step's common log.
    """
    texts = [what]
    if rank is not None:
        texts.append("\n".join(log_of_last_start(run, rank).splitlines()[-60:]))
    early = _newest(run, "log-*.out")
    texts += [said, tail(early) if early else ""]
    return next((cause for text in texts if (cause := cause_of(text))), None)


def newest_output(run: RunDir) -> Path | None:
    """The newest output of a batch script of the run, or None."""
    return _newest(run, "sbatch_*.out")


def _newest(run: RunDir, pattern: str) -> Path | None:
    found = list(run.nemo_run.glob(f"experiments/*/*/*/{pattern}"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def last_start(output: str) -> str:
    """What a requeued job said since it was last started: Slurm appends to one file."""
    return output[max(0, output.rfind("export PYTHONUNBUFFERED=1")) :]


def log_of_last_start(run: RunDir, rank: int) -> str:
    """The end of a rank's log, without what earlier starts of the job wrote."""
    text = tail(run.rank_log(rank))
    return text[max(0, text.rfind(START_LINE)) :]


def tail(path: Path, most_bytes: int = TAIL_BYTES) -> str:
    """The end of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _deaths(said: str) -> Iterator[_Death]:
    for node, tasks, how in _TASK.findall(said):
        yield _Death(node, int(re.split("[,-]", tasks)[0]), how)


def _rank_in(message: str) -> int | None:
    found = re.match(r"rank (\d+)", message)
    return int(found[1]) if found else None


def _ranks_with_stacks(run: RunDir) -> Iterator[int]:
    for path in run.logs.glob("rank*.log"):
        rank = path.stem[4:]
        if rank.isdigit() and _STACKS.search(log_of_last_start(run, int(rank))):
            yield int(rank)


def _node_of(plan: Plan, run: RunDir, rank: int) -> str | None:
    """The host that ran a rank: as it says itself, else by its place in the list of nodes."""
    said = re.match(re.escape(START_LINE) + r"\S+ on (\S+)", log_of_last_start(run, rank))
    if said:
        return said[1]
    try:
        nodes = expand_nodes(run.slurm_starts.read_text(encoding="utf-8").split()[-1])
    except (OSError, IndexError):
        return None
    number = rank // max(1, int(plan.values["num_gpus"]))
    return nodes[number] if number < len(nodes) else None


def expand_nodes(listed: str) -> list[str]:
    """Slurm's `n[01-03,7],login` as `n01 n02 n03 n7 login`."""
    names = []
    for word in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", listed):
        match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", word)
        if match is None:
            names.append(word)
            continue
        for part in match[2].split(","):
            low, _, high = part.partition("-")
            names += [f"{match[1]}{i:0{len(low)}}{match[3]}" for i in range(int(low), int(high or low) + 1)]
    return names
