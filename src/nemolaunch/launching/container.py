"""A job in a container on this machine: start it in the background, ask it to end, kill it.

The engine's command runs below a process of its own session (`container_watch`), so that the run survives the command
that started it and a closed terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from nemolaunch.containers.run import code_folder, container_name, host_of
from nemolaunch.launching.local import note_end, start_in_background
from nemolaunch.launching.prepare import prepare
from nemolaunch.launching.secrets import Secrets
from nemolaunch.planning import Plan
from nemolaunch.run.lock import RunLock
from nemolaunch.system import processes, source_archive
from nemolaunch.system.atomic_files import atomic_folder

ENGINE_TIMEOUT_S = 60


class ContainerJob:
    """A run in a container, started by this process and independent of it.

    Attributes:
        lost: None: the lock of the run folder is held by the process that watches the container.
    """

    lost: str | None = None

    def __init__(self, plan: Plan, secrets: Secrets | None = None) -> None:
        """Prepare the run folder and start the job.

        Raises:
            NemolaunchError: the folder is in use or cannot be written, or the tokenizer is not available.
        """
        self._plan = plan
        lock = RunLock(plan.run.lock)
        lock.take()
        try:
            prepare(plan, secrets)
            with atomic_folder(code_folder(plan)) as code:  # the run keeps the code it was started with
                source_archive.copy_to(code)
        finally:
            lock.release()
        self.process = start_in_background("nemolaunch.launching.container_watch", plan, secrets)

    def poll(self) -> int | None:
        """Return the exit code once the job has ended."""
        return self.process.poll()

    def stop(self, reason: str = "interrupted") -> None:
        """Have the ranks save and exit, and wait for it. Ctrl-C meanwhile kills them."""
        stop(self._plan, reason)

    def close(self) -> None:
        """Wait for the end of the process that watches the container."""
        self.process.wait()


def stop(plan: Plan, reason: str) -> None:
    """Have the ranks of a run save and exit, and wait for it. Ctrl-C meanwhile kills the container."""
    note_end(plan.run, "stopped", reason)
    try:
        ask_to_exit(plan)
        processes.wait_until(lambda: not processes.members(plan.run.root), float("inf"))
    except KeyboardInterrupt:
        kill(plan)


def ask_to_exit(plan: Plan) -> None:
    """Send SIGTERM to the process that watches the container, or to the container if that process is gone."""
    watcher = RunLock(plan.run.lock).local_holder()
    if watcher is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(watcher, signal.SIGTERM)
    else:
        signal_container(plan, "TERM")


def kill(plan: Plan) -> None:
    """End every process of the run at once."""
    signal_container(plan, "KILL")
    processes.kill(plan.run.root)


def signal_container(plan: Plan, name: str) -> None:
    """Send the container's first process a signal; nothing happens if there is no container."""
    engine = host_of(plan).engine
    if engine == "apptainer":  # its processes are ordinary ones of this machine
        processes.terminate(processes.first_with(plan.run.root, "APPTAINER_CONTAINER"))
    else:
        engine_says([engine, "kill", "--signal", name, container_name(plan)])


def engine_says(words: list[str]) -> None:
    """Run a short command of the engine; its errors, such as that there is no such container, do not matter."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ENGINE_TIMEOUT_S, check=False
        )
