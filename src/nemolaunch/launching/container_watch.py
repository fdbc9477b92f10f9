"""The process that runs a container and watches it to its end. Its output is the launcher's log.

    python -m nemolaunch.launching.container_watch PLAN.json

holds the lock of the run folder, runs the engine's command, passes SIGTERM on to the container, and records how it
ended. The exit code is 0 only if the run has finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from nemolaunch.containers.command import passed
from nemolaunch.containers.run import (
    container_name,
    host_of,
    planned_variables,
    run_command,
    shell_variables,
)
from nemolaunch.errors import NemolaunchError
from nemolaunch.job.env_presets import passed_names
from nemolaunch.launching.container import engine_says, signal_container
from nemolaunch.launching.local import note_end
from nemolaunch.planning import Plan
from nemolaunch.ranks.news import news_of
from nemolaunch.run.folder import CONTAINER_LINE, RunDir, end_step
from nemolaunch.run.lock import RunLock
from nemolaunch.run.news import LOCAL_ATTEMPT
from nemolaunch.system import processes

POLL_S = 0.2
# docker's and podman's exit codes for an error of the engine, and for a command that cannot be run or found
ENGINE_FAILED = (125, 126, 127)


class Watch:
    """One container, from its start to its end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._engine: subprocess.Popen[bytes] | None = None
        self._asked = False

    def run(self) -> int:
        """Run the container to its end. Return the exit code of the run."""
        signal.signal(signal.SIGTERM, self._ask)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        engine = self._start()
        code = self._wait(engine)
        if end_step(self._plan.run, self._plan.max_steps) is not None:
            return 0
        if not self._asked:
            with contextlib.suppress(OSError):  # the disk may be full
                self._note_failure(code)
        return code if code > 0 else 1

    def _start(self) -> subprocess.Popen[bytes]:
        plan, host = self._plan, host_of(self._plan)
        if host.engine != "apptainer":  # an engine that crashed may have left one of an earlier start
            engine_says([host.engine, "rm", "--force", container_name(plan)])
        values = {**processes.marked(plan.run.root), **planned_variables(plan, os.environ)}
        engine = subprocess.Popen(
            run_command(plan),
            stdin=subprocess.PIPE,
            env={**os.environ, **passed(host.engine, values)},
        )
        self._engine = engine
        assert engine.stdin is not None
        named = passed_names(plan.job.launch.env)
        shell = {n: value for n, value in shell_variables(os.environ, named).items() if n not in values}
        try:
            with engine.stdin as pipe:
                pipe.write(json.dumps(shell).encode())
        except BrokenPipeError:
            pass  # the engine has failed, and says why
        if self._asked:
            engine.terminate()
        return engine

    def _wait(self, engine: subprocess.Popen[bytes]) -> int:
        """Return the container's exit code; below 0 if it is not known, as the engine's command was killed.

        The container may outlive that command, and is waited for.
        """
        code = engine.wait()
        while processes.members(self._plan.run.root):
            time.sleep(POLL_S)
        return code

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        note_end(self._plan.run, "stopped", "received SIGTERM")
        if self._engine is None:
            return
        if self._engine.poll() is None:
            self._engine.terminate()
        else:
            signal_container(self._plan, "TERM")

    def _note_failure(self, code: int) -> None:
        """Say how the container ended: in the log, which has room for a line even if the disk is full."""
        run = self._plan.run
        if code < 0:
            how = f"ended, and how is not known: `{host_of(self._plan).engine} run` was killed before"
        elif code > 128:
            how = f"was killed by {processes.signal_name(code - 128)} (exit code {code})"
        elif code in ENGINE_FAILED:
            ended = "was ended by its engine" if _has_run(run) else "did not start"
            how = f"{ended} (exit code {code}): {_last_line(run.launcher_log)}"
        else:
            how = f"ended with exit code {code}"
        print(f"{CONTAINER_LINE}{how}", flush=True)
        news_of(self._plan, print).tell_failure(LOCAL_ATTEMPT, f"the container {how}")


def _has_run(run: RunDir) -> bool:
    """Return whether a rank has written to its log since the plan was saved."""
    started = run.plan.stat().st_mtime
    return any(path.stat().st_mtime > started for path in run.logs.glob("rank*.log"))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "the engine said nothing"


def main() -> int:
    """Run the plan's container. Return the exit code."""
    plan = Plan.load(Path(sys.argv[1]))
    lock = RunLock(plan.run.lock)
    try:
        lock.take()
    except NemolaunchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    try:
        return Watch(plan).run()
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main())
