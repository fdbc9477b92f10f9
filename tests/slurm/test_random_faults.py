"""Twenty faults at random moments of one longer run: it ends at its last step with a quiet run's losses."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm import memory
from slurm.cluster import Cluster
from slurm.training import LAYOUT, Training, finish, same_as

from nemolaunch.system import processes

pytestmark = pytest.mark.long
SEED = int(os.environ.get("NEMOLAUNCH_FAULT_SEED", "20"))
NUM_FAULTS = 20
LENGTH = {"max_steps": 200, "checkpoint_every": 5}
Fault = Callable[[Training, int], None]


def kill_rank(run: Training, rank: int) -> None:
    os.kill(run.rank_pids(rank)[0], signal.SIGKILL)


def stop_rank(run: Training, rank: int) -> None:
    run.order(rank, "stop")


def raise_error(run: Training, rank: int) -> None:
    run.order(rank, "raise RuntimeError at random")


def exit_silently(run: Training, rank: int) -> None:
    run.order(rank, "exit 3")


def write_nan(run: Training, rank: int) -> None:
    run.order(rank, "nan")


def exhaust_memory(run: Training, rank: int) -> None:
    run.limits.append(memory.MemoryLimit(run.rank_pids(rank)[0], more_bytes=256 << 20))
    run.order(rank, "memory")


def kill_node(run: Training, rank: int) -> None:
    node = run.cluster.nodes[rank]
    run.cluster.kill_node(node)
    run.cluster.wait_until("dead node noticed", lambda: not run.is_on(node))
    run.cluster.start_node(node)


def kill_batch_script(run: Training, rank: int) -> None:
    run.cluster.kill_script(run.job())


def requeue(run: Training, rank: int) -> None:
    run.cluster.run("scontrol", "requeue", run.job())


def ask_to_leave(run: Training, rank: int) -> None:
    run.cluster.run("scancel", f"--signal={('TERM', 'USR1')[rank]}", run.job())


def preempt(run: Training, rank: int) -> None:
    run.cluster.run("sbatch", "-p", "urgent", "-N2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")


def restart_controller_and_kill_rank(run: Training, rank: int) -> None:
    run.cluster.stop_controller()
    kill_rank(run, rank)
    time.sleep(5)
    run.cluster.start_controller()


FAULTS: tuple[Fault, ...] = (
    kill_rank,
    stop_rank,
    raise_error,
    exit_silently,
    write_nan,
    kill_node,
    kill_batch_script,
    requeue,
    ask_to_leave,
    preempt,
    restart_controller_and_kill_rank,
) + (() if memory.why_not() else (exhaust_memory,))


def test_whatever_happens(
    client: Cluster, training_data: Path, tmp_path: Path, backend: dict[str, Any]
) -> None:
    """The order is that of a seed; a fault strikes when some steps have been done since the last.

    Faults may follow each other without a checkpoint between them, so the guard against that is as good as off.
    """
    quiet = Training(client, tmp_path / "quiet", training_data, **LAYOUT, **LENGTH)
    code, said = finish(quiet.start())
    assert code == 0, said
    run = Training(
        client,
        tmp_path / "run",
        training_data,
        **LAYOUT,
        **LENGTH,
        **backend,
        hang_timeout=30,
        max_failures=NUM_FAULTS + 1,
    )
    chance = random.Random(SEED)
    plan = [*chance.sample(FAULTS, len(FAULTS)), *chance.choices(FAULTS, k=NUM_FAULTS - len(FAULTS))]
    process = run.start()
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for number, fault in enumerate(plan):
        run.wait_for_new_steps(chance.randint(2, 9))
        before, rank = run.num_attempts(), chance.randrange(2)
        print(
            f"{time.monotonic() - began:6.0f} s  step {run.step():3}  fault {number + 1:2}: "
            f"{fault.__name__}, rank {rank}",
            flush=True,
        )
        fault(run, rank)
        counts[fault.__name__] += 1

        def struck(before: int = before) -> bool:
            ended = process.poll() is not None
            if run.num_attempts() > before:
                return True
            assert not ended, finish(process)
            return False

        client.wait_until("new start", struck, 300)
    code, said = finish(process, 1800)
    assert code == 0, said
    print(f"{sum(counts.values())} faults, {run.num_attempts()} starts, {dict(counts)}")
    print(
        f"checkpoints set aside: {len(list(run.run.incomplete.glob('*'))) if run.run.incomplete.exists() else 0}"
    )
    assert sum(counts.values()) == NUM_FAULTS
    same_as(quiet, run)
    assert not processes.members(run.run.root)  # helpers of ranks that were killed
