"""Units as tasks of a Ray cluster. Ray starts a task again whose worker or node is lost."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.tokenization.request import EngineMismatch
from nemolaunch.tokenization.units.inline import Kept
from nemolaunch.tokenization.units.run import Done, counted
from nemolaunch.tokenization.units.unit import MIN_UNIT_BYTES, UNIT_BYTES, Unit
from nemolaunch.tokenization.units.work import FilesDiffer, UnitWork, do_unit

if TYPE_CHECKING:
    from collections.abc import Generator

# A unit that takes its worker with it this often, for instance because memory runs out, stops the run.
RETRIES = 10
# Units handed to Ray for each core: enough that none waits, and that a cluster that can grow sees the need.
AHEAD = 4
# So that all cores finish at about the same time
UNITS_EACH = 8
# What objects between processes take; results go to files
OBJECT_STORE_BYTES = 128 << 20
STOP_WITHIN_S = 20.0
CONNECT_WITHIN_S = 10.0
# Ray prints pages on standard output about every worker that it replaces; what fails in the end raises an error
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
# Each task has one core
THREADS = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "FASTOKENS_BPE_THREADS": "1"}


@dataclass(frozen=True)
class Outcome:
    """The result of a task. Errors that mean something are values: Ray starts a task again only if its process ends.

    Attributes:
        error: `differs` for an engine, `files` for input or folders that the node does not see, `system` for an
            OSError, `other` for a fault of a library.
    """

    done: Done | None
    error: str = ""
    text: str = ""
    node: str = ""


@dataclass(frozen=True)
class RayCluster:
    """A cluster this process is connected to."""

    address: str
    num_cpus: int

    def unit_bytes(self, total: int) -> int:
        """Return how large the units of an input of that size should be."""
        return max(MIN_UNIT_BYTES, min(UNIT_BYTES, total // (self.num_cpus * UNITS_EACH)))

    def execute(self, work: UnitWork, units: list[Unit]) -> Generator[Done, None, None]:
        """Do units as tasks, and yield each when it is done."""
        import ray

        shared = ray.put(work)
        task = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(_do)
        left = iter(units)
        under_way: dict[Any, Unit] = {}
        try:
            while True:
                window = AHEAD * max(self.num_cpus, _num_cpus())
                while len(under_way) < window and (unit := next(left, None)) is not None:
                    under_way[task.remote([shared], work.folder, unit)] = unit
                if not under_way:
                    return
                ready, _ = ray.wait(list(under_way), timeout=10)
                for found in ready:
                    unit = under_way.pop(found)
                    done = _checked(found, unit)
                    yield done
                    if done.rejects and work.request.on_error == "stop":
                        left = iter(())  # what comes before is still finished: its records are checked first
        finally:
            _cancel(list(under_way))


def _do(shared: list[Any], key: str, unit: Unit) -> Outcome:
    """Do a unit, in a worker of Ray's."""
    import ray

    work = _Here.work_of(key, shared[0])
    node = str(ray.util.get_node_ip_address())
    gc.disable()  # nothing here is circular, and the collector would scan every document repeatedly
    try:
        rejects = do_unit(work, unit, _Here.kept.workers)
        return Outcome(counted(work, unit, rejects))
    except EngineMismatch as error:
        return Outcome(None, "differs", str(error), node)
    except FilesDiffer as error:
        return Outcome(None, "files", str(error), node)
    except OSError as error:
        return Outcome(None, "system", f"{error.strerror or error} ({error.filename or work.folder})", node)
    except MemoryError:
        return Outcome(None, "other", "memory ran out", node)
    except Exception as error:
        kind = "differs" if work.request.engine != "hf" else "other"
        return Outcome(None, kind, f"{work.request.engine} failed: {type(error).__name__}: {error}", node)
    finally:
        gc.enable()


class _Here:
    """What a worker of Ray's keeps from unit to unit."""

    kept = Kept()
    key = ""
    work: UnitWork

    @classmethod
    def work_of(cls, key: str, shared: Any) -> UnitWork:
        import ray

        if cls.key != key:
            cls.work, cls.key = ray.get(shared), key
        return cls.work


def _checked(found: Any, unit: Unit) -> Done:
    """Return what a task has done. Raises what its error means for the run."""
    import ray
    from ray import exceptions

    try:
        outcome: Outcome = ray.get(found)
    except exceptions.RayTaskError as error:
        raise NemolaunchError(
            f"a worker of Ray failed: {_last_line(error)}. All nodes need the same nemolaunch, with the same Python"
            " packages"
        ) from None
    except exceptions.RayError as error:
        raise NemolaunchError(
            f"Ray lost the worker of {unit} {RETRIES + 1} times (out of memory?), or the cluster: {_last_line(error)};"
            " finished work is kept, run the same command again to resume"
        ) from None
    if outcome.done is not None:
        return outcome.done
    if outcome.error == "differs":
        raise EngineMismatch(outcome.text)
    if outcome.error == "files":
        raise FilesDiffer(f"{outcome.text} (Ray node {outcome.node})")
    raise NemolaunchError(
        f"{outcome.text}, on Ray node {outcome.node}; finished work is kept, run the same command again to resume"
    )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _cancel(tasks: list[Any]) -> None:
    """Stop tasks, and wait for that: what they write may be about to be removed."""
    import ray

    if not tasks:
        return
    with contextlib.suppress(Exception):  # the cluster may be gone
        for task in tasks:
            ray.cancel(task, force=True)
        ray.wait(tasks, num_returns=len(tasks), timeout=STOP_WITHIN_S)


def _check_address(given: str) -> None:
    """Raise UsageError for an address that nothing listens at: Ray itself would wait for it for minutes."""
    if given.startswith("ray://"):
        raise UsageError(
            f"--ray-address {given}: Ray's client is not supported; run the command on a node of the cluster, with"
            " --ray-address auto"
        )
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray-address {given}: there is no Ray cluster: {error}") from None


def _num_cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[RayCluster]:
    """Connect to the cluster at an address, or start one on this machine with so many workers.

    Raises UsageError if Ray is not installed, or there is no cluster.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--executor ray needs Ray, which is not installed: pip install 'nemolaunch[ray]'")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield RayCluster("this process", _num_cpus())
        return
    given = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(given)
    mine: dict[str, Any] = {}
    if given == "local":
        mine = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    variables = {**THREADS, **({"PYTHONPATH": path} if (path := os.environ.get("PYTHONPATH")) else {})}
    try:
        ray.init(
            address=given,
            runtime_env={"env_vars": variables},
            logging_level=logging.ERROR,
            log_to_driver=False,
            **mine,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--ray-address {given}: there is no Ray cluster: {_last_line(error)}") from None
    try:
        yield RayCluster(given, max(1, _num_cpus()))
    finally:
        ray.shutdown()
