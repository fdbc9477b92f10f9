"""A failed run is explained by the rank that failed first, whatever the others shouted afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden.batch_plans import saved_plan

from nemolaunch.observe.diagnosis import diagnose, newest_failure
from nemolaunch.observe.failure_patterns import CAUSES, cause_of
from nemolaunch.planning import Plan
from nemolaunch.run.attempts import attempts, expand_nodes, output_during
from nemolaunch.slurm import batch_job

KILLED = """\
srun: error: n2: task 9: Killed
srun: launch/slurm: _step_signal: Terminating StepId=14.1
slurmstepd-n1: error: *** STEP 14.1 ON n1 CANCELLED AT 2026-11-21T02:29:20 ***
srun: error: n1: task 0: Terminated
srun: error: n1: tasks 1-7: Exited with exit code 143
"""

# What a rank, srun or Slurm really writes, and the cause it must be taken for.
WORDS = {
    "setup": "nemolaunch: the set-up of the job failed with code 1: module load cuda/99",
    "gpu-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "disk-full": "OSError: [Errno 28] No space left on device: '/runs/x/checkpoints/a/__0_1.distcp'",
    "not-finite": "AssertionError: Rank 3: found NaN in local grad norm for bucket #0 in backward pass",
    "data-missing": "FileNotFoundError: [Errno 2] No such file or directory: '/data/en_text_document.idx'",
    "container": "pyxis: container start failed with error code: 1",
    "versions": "TypeError: get_megatron_optimizer() got an unexpected keyword argument 'no_weight_decay_cond'",
    "import": "ModuleNotFoundError: No module named 'transformer_engine'",
    "checkpoint": "megatron.core.dist_checkpointing.core.CheckpointingException: size mismatch for decoder",
    "hub": "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo",
    "preflight": "rank 1: Unfit: preflight: n2 GPU 3 has 2 uncorrectable memory errors; none is allowed",
    "gpu-broken": "RuntimeError: CUDA error: uncorrectable ECC error encountered",
    "token-ids": "IndexError: index out of range in self",
    "gpu-fault": "RuntimeError: CUDA error: device-side assert triggered",
    "port-taken": "DistNetworkError: The server socket has failed to listen: EADDRINUSE",
    "hang": "srun: error: n1: task 0: Alarm clock",
    "host-memory": "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0",
    "crashed": "srun: error: n2: task 4: Segmentation fault (core dumped)",
    "preempted": "slurmstepd: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-21T02:28:25 DUE TO PREEMPTION ***",
    "node-failed": "slurmstepd: error: *** JOB 14 ON n1 CANCELLED AT 2026-11-21 DUE TO NODE FAILURE ***",
    "time-limit": "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-21T02:28:25 DUE TO TIME LIMIT ***",
    "no-time-to-save": "exited cleanly: time limit in 580 s, and a checkpoint takes 9999 s",
    "collective-timeout": "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
    "terminated": "rank 0: received SIGTERM",
    "network": "RuntimeError: [gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer",
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return saved_plan(tmp_path / "run")


def say(plan: Plan, *outputs: str) -> None:
    """What the batch script of job 14 said in each of its starts."""
    path = batch_job.task_dir(plan) / "sbatch_llama_14.out"
    path.parent.mkdir(parents=True, exist_ok=True)
    plan.run.slurm.mkdir(exist_ok=True)
    parts = [f"nemolaunch: start 14.{i} on n[1-2]\n{output}" for i, output in enumerate(outputs)]
    path.write_text("export PYTHONUNBUFFERED=1\n".join(parts))
    rows = [f"14 {i} 1795568147 -1 n[1-2]\n" for i in range(len(outputs))]
    plan.run.slurm_attempts.write_text("- 0 1795568147 submitted\n" + "".join(rows))


def raised(plan: Plan, rank: int, time: float, kind: str, message: str, start: str = "14.0") -> None:
    record = {"rank": rank, "time": time, "type": kind, "message": message, "start": start}
    plan.run.rank_error(rank).write_text(json.dumps(record))


@pytest.mark.parametrize("code", WORDS)
def test_known_words_name_their_cause(code: str) -> None:
    found = cause_of(WORDS[code])
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize(
    "words", ["no connection to the hub", "there is no connection to the hub"]
)  # now, before
def test_a_hub_out_of_reach_is_not_taken_for_the_ranks_network(words: str) -> None:
    found = cause_of(f"rank 1: NemolaunchError: cannot read hf://datasets/a/b: {words} at https://x")
    assert found is not None
    assert found.code == "hub"


def test_every_cause_has_words_that_show_it() -> None:
    assert set(WORDS) == {cause.code for cause in CAUSES}


def test_a_killed_rank_is_named_though_another_one_raised(plan: Plan) -> None:
    say(plan, KILLED)
    raised(plan, 0, 5.0, "RuntimeError", "[gloo/transport/tcp/pair.cc:537] Connection reset by peer")
    found = diagnose(plan.run)
    assert (found.rank, found.node) == (9, "n2")
    assert found.cause is not None
    assert found.cause.code == "host-memory"
    assert "n2" in "\n".join(found.lines())


def test_a_set_up_that_failed_is_the_cause(plan: Plan) -> None:
    line = "nemolaunch: the set-up of the job failed with code 1: module load cuda/99"
    say(plan, f"{line}\nnemolaunch: exited with code 1 at checkpoint -1\n")
    found = diagnose(plan.run)
    assert found.what == line
    assert found.cause is not None
    assert found.cause.code == "setup"


def test_ranks_that_a_signal_ends_before_they_could_catch_it(plan: Plan) -> None:
    say(plan, "srun: error: n1: tasks 0-7: Terminated\nsrun: error: n2: tasks 8-15: Terminated\n")
    found = diagnose(plan.run)
    assert (found.what, found.node) == ("rank 0: Terminated", "n1")
    assert found.cause is not None
    assert found.cause.code == "terminated"


def test_the_first_exception_is_the_cause(plan: Plan) -> None:
    say(plan, "srun: error: n1: task 3: Exited with exit code 1\nsrun: error: n2: task 9: Terminated\n")
    raised(plan, 3, 5.0, "OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB")
    raised(plan, 9, 6.0, "DistBackendError", "NCCL communicator was aborted")
    found = diagnose(plan.run)
    assert (found.rank, found.node) == (3, "n1")
    assert found.cause is not None
    assert found.cause.code == "gpu-memory"
    assert found.log == plan.run.rank_log(3)


def test_a_rank_that_left_without_a_word_is_named_though_its_neighbours_were_seen_to_end_first(
    plan: Plan,
) -> None:
    say(
        plan,
        "srun: error: n1: tasks 0-3: Exited with exit code 1\nsrun: error: n2: task 9: Exited with exit code 7\n",
    )
    for rank in range(4):
        raised(
            plan,
            rank,
            100.0 + rank,
            "RuntimeError",
            "[gloo/transport/tcp/pair.cc:553] Connection closed by peer",
        )
    found = diagnose(plan.run)
    assert (found.rank, found.node, found.what) == (9, "n2", "rank 9: Exited with exit code 7")


def test_a_hang_names_the_ranks_with_stacks(plan: Plan) -> None:
    say(plan, "", "srun: error: n1: task 0: Alarm clock\n")
    for rank in (0, 1):
        plan.run.rank_log(rank).write_text("nemolaunch: start 14.1 on n1\nTimeout (0:30:00)!\nThread 0x1:\n")
    plan.run.rank_log(2).write_text("Timeout (0:30:00)!\nnemolaunch: start 14.1 on n2\nall well now\n")
    found = diagnose(plan.run)
    assert found.stacks == (0, 1)
    assert found.cause is not None
    assert found.cause.code == "hang"


def test_a_container_that_did_not_start_is_explained_from_the_batch_output(plan: Plan) -> None:
    said = (
        "pyxis: importing docker image: nvcr.io/nvidia/nemo:26.02\nslurmstepd: error: pyxis: child 7 failed"
    )
    say(plan, f"{said} with error code: 1\nsrun: error: n1: tasks 0-7: Exited with exit code 1\n")
    found = diagnose(plan.run)
    assert found.cause is not None
    assert found.cause.code == "container"


def test_what_an_earlier_start_said_is_not_held_against_a_later_one(plan: Plan) -> None:
    say(plan, KILLED, "srun: error: n1: task 2: Segmentation fault\n")
    raised(plan, 0, 5.0, "ValueError", "of the first start", start="14.0")
    found = diagnose(plan.run)
    assert found.rank == 2
    assert found.cause is not None
    assert found.cause.code == "crashed"


def test_while_a_run_goes_on_the_start_before_is_explained(plan: Plan) -> None:
    say(plan, "srun: error: n1: task 2: Segmentation fault\n", "")
    found = newest_failure(plan.run, alive=True)
    assert found is not None
    assert (found.rank, found.node) == (2, "n1")
    for word in ("exited", "left"):  # batch scripts before 0.2 wrote the latter
        say(plan, f"nemolaunch: {word} with code 0 at checkpoint 5\n", "")
        assert newest_failure(plan.run, alive=True) is None
    say(plan, "")
    assert newest_failure(plan.run, alive=True) is None


def test_an_earlier_start_is_found_far_back_in_a_long_log(plan: Plan) -> None:
    say(plan, KILLED, "")
    with open(plan.run.rank_log(9), "w") as log:
        log.write("nemolaunch: start 14.0 on n2\ntorch.OutOfMemoryError: CUDA out of memory\n")
        log.write("nemolaunch: start 14.1 on n3\n" + "all is well\n" * 50000)
    found = newest_failure(plan.run, alive=True)
    assert found is not None
    assert found.node == "n2"
    assert output_during(plan.run.rank_log(9), attempts(plan.run)[0]).endswith("CUDA out of memory\n")


def test_without_any_trace_it_says_so_and_where_to_look(plan: Plan) -> None:
    found = diagnose(plan.run)
    assert found.cause is None
    assert found.rank is None
    assert found.lines()[-1].startswith("log")


@pytest.mark.parametrize(
    ("listed", "nodes"),
    [
        ("n1", ["n1"]),
        ("n[1-2]", ["n1", "n2"]),
        ("gpu[08-10,12],login", ["gpu08", "gpu09", "gpu10", "gpu12", "login"]),
        ("a-b[1,3]-x,c", ["a-b1-x", "a-b3-x", "c"]),
    ],
)
def test_node_lists_are_expanded_as_slurm_does(listed: str, nodes: list[str]) -> None:
    assert expand_nodes(listed) == nodes
