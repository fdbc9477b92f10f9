"""The command itself, with NeMo-Run and torchrun below it: training, failing, being stopped."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from e2e.command import cut_off, finished, processes_about, started, wait_for, with_other_ids, words

from nemolaunch.cli.commands import cancel
from nemolaunch.observe.status import status

# every line the command may print while it trains and is not on a terminal
OURS = re.compile(
    r"small-llama: 3 steps of 512 tokens, 2 processes, CPU rehearsal, from scratch"
    r"|log of the first rank: run/logs/rank0\.log"
    r"|step [123]/3  loss \d\.\d{3}  [\d,]+ tokens/s  ETA [\d:]+"
    r"|step 3/3  (validation loss \d\.\d{3}|checkpoint)"
    r"|✓ finished step 3; checkpoint run/checkpoints/small-llama--step=2-consumed_samples=24\.0-last"
    r"|(importing NeMo|preparing the data|building the model|first step|validating and saving"
    r"|waiting for the processes to end) …"
    r"|next:"
    r"|  nemolaunch (report run|generate run --prompt 'It was'|convert run run/hf)"
)


def test_trains_and_knows_when_it_has_finished(data: str, tmp_path: Path) -> None:
    """From a folder of any name, and without a network too, where the machine's own name leads nowhere."""
    tmp_path /= "it's my (new); 資料"
    tmp_path.mkdir()
    job = words(tmp_path, data, "--max-steps", "3", "--split", "90,9,1", "--limit-val-batches", "1")
    command = [*cut_off(), *job]
    done = finished(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line for line in done.stdout.splitlines() if not OURS.fullmatch(line)] == []

    run = tmp_path / "run"
    plan = json.loads((run / "plan.json").read_text())
    assert (plan["world_size"], plan["values"]["max_steps"], plan["device"]) == (2, 3, "cpu")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    (events,) = (run / "tb_logs").glob("events.out.tfevents.*")
    assert b"reduced_train_loss" in events.read_bytes()
    assert (run / "logs" / "rank0.log").stat().st_size
    assert (run / "logs" / "rank1.log").exists()
    (last,) = (run / "checkpoints").glob("*-last")
    assert {"context", "weights"} <= {path.name for path in last.iterdir()}
    assert processes_about(run) == {}

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = finished(command, tmp_path)
    assert again.returncode == 0
    assert again.stdout == "✓ this run has already finished step 3; raise --max-steps to continue it\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_failing_rank_fails_the_command(data: str, tmp_path: Path) -> None:
    """Data of a larger vocabulary, from elsewhere, trained on against the advice of the checks."""
    foreign = with_other_ids(tmp_path / "foreign", data)

    forced = words(tmp_path, str(foreign), "--max-steps", "3", "--force", "token-ids")
    done = finished(forced, tmp_path)
    assert done.returncode == 1
    warning, message, *_, cause, change, log = done.stderr.splitlines()
    assert warning.startswith("warning, forced[token-ids]")
    assert re.fullmatch(r"error: the job failed\. rank [01]: IndexError: index out of range in self", message)
    assert cause.endswith("[token-ids]")
    assert "nemolaunch inspect" in change
    assert "IndexError" in Path(log.split(maxsplit=1)[1]).read_text()
    assert processes_about(tmp_path / "run") == {}


@pytest.mark.parametrize(("cancelled", "why"), [(False, "interrupted"), (True, "cancelled by the user")])
def test_ctrl_c_and_cancel_stop_every_process(data: str, tmp_path: Path, cancelled: bool, why: str) -> None:
    run = tmp_path / "run"
    process = started(words(tmp_path, data, "--max-steps", "10000"), tmp_path)
    wait_for(lambda: trained(run), process)
    assert len(processes_about(run)) > 4  # the command, NeMo-Run, torchrun and two ranks
    if cancelled:
        assert cancel.main([str(run)]) == 0
    else:
        process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert processes_about(run) == {}
    assert (tmp_path / "err").read_text() == ""
    said = (tmp_path / "out").read_text()
    assert re.search(r"\nstopped; the same command resumes from run/checkpoints/\S+-last\n$", said)
    now = status(run)  # whatever the ranks said as they ended
    assert (now.state, now.detail) == ("stopped", why)
    assert now.checkpoint_step == now.step > 0  # that of its last step
    assert cancel.main([str(run)]) == 0
    assert status(run).detail == why


@pytest.mark.long
def test_a_second_ctrl_c_stops_at_once(data: str, tmp_path: Path) -> None:
    """Of a job that does not end, since torchrun is suspended."""
    run = tmp_path / "run"
    process = started(words(tmp_path, data, "--max-steps", "10000"), tmp_path)
    wait_for(lambda: trained(run), process)
    (agent,) = (pid for pid, command in processes_about(run).items() if "bin/torchrun" in command)
    os.kill(agent, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "Ctrl-C again stops without one" in (tmp_path / "out").read_text(), process)
    wait_for(lambda: not processes_about(run, "RANK="), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert processes_about(run) == {}
    assert (tmp_path / "err").read_text() == ""
    assert (status(run).state, status(run).detail) == ("stopped", "interrupted")


def trained(run: Path) -> bool:
    """Whether a step is done."""
    return (run / "metrics.jsonl").exists() and '"loss"' in (run / "metrics.jsonl").read_text()


def test_a_killed_rank_fails_the_command(data: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(words(tmp_path, data, "--max-steps", "10000"), tmp_path)
    wait_for(lambda: (run / "logs" / "rank1.log").exists(), process)
    ranks = [pid for pid, command in processes_about(run, "RANK=1").items() if "fdl_runner" in command]
    os.kill(ranks[0], signal.SIGKILL)
    assert process.wait(120) == 1
    message, *_, cause, _, log = (tmp_path / "err").read_text().splitlines()
    assert message.startswith("error: the job failed. rank 1 was killed by SIGKILL")
    assert cause.endswith("[host-memory]")
    assert Path(log.split(maxsplit=1)[1]).exists()
    assert processes_about(run) == {}
    now = status(run)
    assert now.state == "failed"
    assert now.detail.startswith("rank 1 was killed by SIGKILL")
