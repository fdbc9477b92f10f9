"""What a rank does because others end and restart it: handle signals, agree on the checkpoint to start from."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType

from nemolaunch.ranks.log import log
from nemolaunch.run.folder import ATTEMPT, RunDir
from nemolaunch.system.atomic_files import write_json
from nemolaunch.system.processes import SAVE_SIGNAL

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# Of a run that ends with its command, which sends this one. Whoever else ends its ranks does not wait for a checkpoint
SIGNALS_OF_COMMAND = (SAVE_SIGNAL,)
SETTLE_TIMEOUT_S = 1800.0
POLLS_S = (0.2, 5.0)  # first and longest interval: thousands of ranks poll one file system


class Signals:
    """Records a signal that asks the rank to exit: preemption, a time limit, scancel.

    The signals stay blocked and a thread waits for them. Blocking is inherited, so the checkpoint writer's
    helper processes, which Slurm signals too, survive and finish the save. Threads that libraries have started
    earlier do not block the signals; for those there is a handler.

    Python's multiprocessing unblocks SIGTERM in the thread that first starts its resource tracker, and a SIGTERM
    would kill helpers started after that. So the tracker is started here, and `block` is called again later.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._numbers: tuple[signal.Signals, ...] = ()

    def catch(self, numbers: tuple[signal.Signals, ...] = SIGNALS) -> None:
        """Block the signals in this thread and in all threads it starts. Call this before there are others."""
        self._numbers = numbers
        self.install_handlers()
        self.block()
        resource_tracker.ensure_running()
        self.block()
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def block(self) -> None:
        """Block the signals in this thread, and in threads and processes it starts from now on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def install_handlers(self) -> None:
        """Replace Lightning's handlers, which raise in the middle of a step or requeue the job."""
        for number in self._numbers:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)

    def _wait(self) -> None:
        while True:
            self.received = signal.Signals(signal.sigwait(self._numbers))


signals = Signals()


def adopt_slurm_variables() -> None:
    """Set torchrun's variables for rank and world size, for code that reads those."""
    if "SLURM_PROCID" not in os.environ or "RANK" in os.environ:
        return
    names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
    for name, source in names.items():
        os.environ.setdefault(name, os.environ[source])


def this_attempt() -> str:
    """Return the name of this attempt, `JOB.RESTART`: a requeued job keeps its id."""
    return f"{os.environ.get('SLURM_JOB_ID', '0')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def settle_checkpoints(run: RunDir, rank: int) -> None:
    """Move incomplete checkpoints aside, once for all ranks: rank 0 does it, the others wait for it.

    Raises:
        TimeoutError: rank 0 has not finished within half an hour.
    """
    log.info("%s%s on %s", ATTEMPT, this_attempt(), socket.gethostname())
    settled = run.slurm / f"settled-{this_attempt()}.json"
    if rank == 0:
        moved = set_incomplete_aside(run)
        for old in run.slurm.glob("settled-*.json"):
            old.unlink()
        write_json(settled, {"set_aside": [path.name for path in moved]})
        return
    end, poll_s = time.monotonic() + SETTLE_TIMEOUT_S, POLLS_S[0]
    while not settled.exists():
        if time.monotonic() > end:
            raise TimeoutError(
                f"rank 0 has not written {settled}: is {run.root} the same folder on every node?"
            )
        time.sleep(poll_s)
        poll_s = min(1.5 * poll_s, POLLS_S[1])


def set_incomplete_aside(run: RunDir) -> list[Path]:
    """Move incomplete checkpoints, newest first, into `torn/` until the newest one left is complete."""
    # Here, since the checkpoint writer's helper processes import this module too
    from nemolaunch.checkpoint.megatron.completeness import incomplete

    moved = []
    while (newest := run.newest_checkpoint()) is not None and (fault := incomplete(newest)):
        target = run.incomplete / f"{newest.name}.{int(time.time())}"
        target.parent.mkdir(exist_ok=True)
        log.info("%s is incomplete (%s); moved to %s", newest.name, fault, target)
        shutil.move(newest, target)
        newest.with_name(newest.name + "-unfinished").unlink(missing_ok=True)
        link = newest.with_name(newest.name + "-last")
        if link.is_symlink():
            link.unlink()
        moved.append(newest)
    return moved
