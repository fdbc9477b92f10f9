"""One fault in a real training over two nodes: explained by its first rank, and nothing but time is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from slurm.memory import MemoryLimit
from slurm.training import Training, finish, same_as

from nemolaunch.system import processes

pytestmark = pytest.mark.long


def raise_error(run: Training) -> None:
    run.order(1, "raise ValueError a sample is not what it should be")


def leave_without_a_word(run: Training) -> None:
    run.order(1, "exit 7")


def crash(run: Training) -> None:
    os.kill(run.rank_pids(1)[0], signal.SIGSEGV)


def write_nan(run: Training) -> None:
    run.order(1, "nan")


def fill_the_disk(run: Training) -> None:
    run.order(0, "raise OSError [Errno 28] No space left on device")


def run_out_of_memory(run: Training) -> None:
    limit = MemoryLimit(run.rank_pids(1)[0], more_bytes=256 << 20)
    run.limits.append(limit)
    run.order(1, "memory")


def lose_a_package(run: Training) -> None:
    run.order(1, "raise ModuleNotFoundError No module named 'transformer_engine'")


# fault, the cause that has to be named, what the first rank's failure has to look like
FAULTS: dict[str, tuple[Callable[[Training], None], str | None, str]] = {
    "raises": (raise_error, None, "failed  rank 1: ValueError: a sample is not what it should be"),
    "exits": (leave_without_a_word, None, "failed  rank 1: Exited with exit code 7"),
    "segfault": (crash, "crashed", "failed  rank 1: Segmentation fault"),
    "nan": (write_nan, "not-finite", "failed  rank"),
    "out of memory": (run_out_of_memory, "host-memory", "failed  rank 1: Killed"),
    "disk full": (fill_the_disk, "disk-full", "failed  rank 0: OSError"),
    "package missing": (lose_a_package, "import", "failed  rank 1: ModuleNotFoundError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_rank_that_fails_is_named_and_the_run_goes_on(quiet: Training, run: Training, name: str) -> None:
    fault, code, failed = FAULTS[name]
    process = run.start()
    run.wait_for_step(6)
    fault(run)
    exit_code, said = finish(process)
    assert exit_code == 0, said
    assert failed in said, said
    assert code is None or f"[{code}]" in said, said
    assert name in ("nan", "disk full") or "first   rank 1 on n2" in said, said
    assert run.num_attempts() == 2
    same_as(quiet, run)
    assert not processes.members(run.run.root)


def test_a_hang_ends_with_the_stacks_of_all_ranks(quiet: Training, run: Training) -> None:
    run.flags["hang_timeout"] = 30
    process = run.start()
    run.wait_for_step(6)
    run.order(1, "stop")
    exit_code, said = finish(process)
    assert exit_code == 0, said
    assert "[hang]" in said, said
    assert "Timeout (0:00:30)!" in run.run.rank_log(0).read_text()
    same_as(quiet, run)


def test_a_node_killed_in_the_middle_of_a_checkpoint(quiet: Training, run: Training) -> None:
    """Its folder exists and its marker says that it is incomplete: it is set aside, and the one before is used."""
    process = run.start()
    run.wait_for_step(5)
    run.cluster.wait_until("checkpoint being written", lambda: run.saving() is not None, 120, every_s=0.005)
    run.cluster.kill_node("n2")
    incomplete = run.saving()
    run.cluster.wait_until("dead node noticed", lambda: not run.is_on("n2"))
    run.cluster.start_node("n2")
    exit_code, said = finish(process)
    assert exit_code == 0, said
    assert incomplete is not None
    assert any(path.name.startswith(incomplete) for path in run.run.incomplete.iterdir())
    same_as(quiet, run)


def test_a_node_killed_in_the_middle_of_a_step(quiet: Training, run: Training) -> None:
    process = run.start()
    run.wait_for_step(6)
    run.cluster.kill_node("n1")
    run.cluster.wait_until("dead node noticed", lambda: not run.is_on("n1"))
    run.cluster.start_node("n1")
    exit_code, said = finish(process)
    assert exit_code == 0, said
    same_as(quiet, run)


def test_a_node_killed_while_the_job_is_being_requeued(quiet: Training, run: Training) -> None:
    process = run.start()
    run.wait_for_step(6)
    run.order(1, "exit 7")
    run.cluster.wait_until("requeue", lambda: run.cluster.state(run.job()) == "PENDING")
    run.cluster.kill_node("n2")
    run.cluster.wait_until("dead node noticed", lambda: "n2" not in run.cluster.idle_nodes())
    run.cluster.start_node("n2")
    exit_code, said = finish(process)
    assert exit_code == 0, said
    same_as(quiet, run)


def test_a_preempted_run_saves_and_continues(quiet: Training, run: Training) -> None:
    process = run.start()
    run.wait_for_step(6)
    run.cluster.run("sbatch", "-p", "urgent", "-N2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    exit_code, said = finish(process)
    assert exit_code == 0, said
    assert "with a checkpoint: signal SIGTERM" in run.run.rank_log(0).read_text()
    assert run.num_attempts() == 2
    same_as(quiet, run)
