"""A throw-away Slurm cluster on one machine: real daemons, several nodes, all in one folder, no systemd.

Needs root and Debian's slurm-wlm, munge, slurmdbd, mariadb-server-core, mariadb-client-core. Each node is a
slurmd in its own process, mount and host name space, so that killing it is the death of a whole machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from slurm import cluster_config

from nemolaunch.system.processes import signal_on_parents_death

DAEMONS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "unshare")


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    missing = [name for name in DAEMONS if not (shutil.which(name) or shutil.which(name, path="/usr/sbin"))]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurm-wlm munge slurmdbd mariadb-server-core)"
    if os.geteuid() != 0:
        return "starting nodes needs root"
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "mount", "-t", "tmpfs", "none", "/run"]
    if subprocess.run(probe, capture_output=True).returncode:
        return "this machine allows no name spaces"
    return None


class Cluster:
    """Starts and stops the daemons; `environment` is what clients need.

    Args:
        folder: empty; everything lives in it.
        accounting: whether slurmdbd and its database run.
        spank: lines for plugstack.conf.
        drops_hopeless_jobs: whether a job whose dependency can never be satisfied leaves the queue; Slurm's own
            default is that it does not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_nodes: int = 2,
        accounting: bool = True,
        spank: str = "",
        drops_hopeless_jobs: bool = True,
    ) -> None:
        self.folder = folder
        self.nodes = [f"n{i + 1}" for i in range(num_nodes)]
        self.accounting = accounting
        self.spank = spank
        self.drops_hopeless_jobs = drops_hopeless_jobs
        self.small = folder / "small"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = dict(os.environ, SLURM_CONF=str(folder / "slurm.conf"))
        self.environment["PATH"] += ":/usr/sbin:/sbin"

    def start(self) -> None:
        """Bring everything up; returns when all nodes are idle."""
        for name in ("run", "log", "state"):
            (self.folder / name).mkdir(parents=True)
        controller, database, sql, *nodes = free_ports(3 + len(self.nodes))
        self.controller_port = controller
        cluster_config.write(
            self.folder,
            controller_port=controller,
            database_port=database if self.accounting else None,
            sql_port=sql,
            node_ports=dict(zip(self.nodes, nodes, strict=True)),
            spank=self.spank,
            drops_hopeless_jobs=self.drops_hopeless_jobs,
        )
        self._mount_small()
        self._start_munge()
        if self.accounting:
            self._start_accounting(sql, database)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self._wait("idle nodes", lambda: len(self.idle_nodes()) == len(self.nodes), 60)

    def _mount_small(self) -> None:
        """A file system of 220 MB that all nodes see: of the trainings here it takes two checkpoints."""
        self.small.mkdir()
        self.run("mount", "-t", "tmpfs", "-o", "size=220m", "none", str(self.small))

    def stop(self) -> None:
        """Stop every daemon, nodes first."""
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.send_signal(signal.SIGKILL if name in self.nodes else signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.run("umount", "--lazy", str(self.small), check=False)

    def run(self, *command: str, check: bool = True, **options: object) -> str:
        """Output of a client command, such as `cluster.run("squeue")`."""
        answer = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False, **options
        )  # type: ignore[call-overload]
        if check and answer.returncode:
            raise AssertionError(f"{' '.join(command)}: {answer.stderr}{answer.stdout}")
        return str(answer.stdout).strip()

    def idle_nodes(self) -> list[str]:
        return self.run("sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N", check=False).split()

    def state(self, job: str) -> str:
        """State of a job, as Slurm's controller remembers it."""
        shown = self.run("scontrol", "-o", "show", "job", job, check=False)
        return shown.partition(" JobState=")[2].partition(" ")[0]

    def wait_until(
        self, what: str, condition: Callable[[], bool], timeout_s: float = 120, every_s: float = 0.1
    ) -> None:
        """Poll a condition; AssertionError with the queue after the time."""
        self._wait(what, condition, timeout_s, every_s)

    def start_node(self, node: str) -> None:
        inside = (
            f"hostname {node}; mount -t tmpfs none /run; mount --bind {self.folder}/hosts /etc/hosts; "
            f"exec slurmd -D -N {node}"
        )
        self._spawn(
            node,
            "unshare",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "--uts",
            "sh",
            "-c",
            inside,
        )

    def inside(self, node: str, script: str) -> None:
        """Run a shell script in the name spaces of a node."""
        (child,) = (
            Path(f"/proc/{self.processes[node].pid}/task/{self.processes[node].pid}/children")
            .read_text()
            .split()
        )
        command = ["nsenter", "--target", child, "--mount", "--uts", "--pid", "sh", "-ec", script]
        subprocess.run(command, check=True, timeout=60)

    def kill_node(self, node: str) -> None:
        """End a node as a power cut does: slurmd, its steps and every task."""
        process = self.processes.pop(node)
        process.kill()
        process.wait()

    def kill_script(self, job: str) -> None:
        """End a job's batch script without a word to Slurm, as the kernel does when memory runs out."""
        script = f"job{int(job):05}/slurm_script"
        for entry in os.scandir("/proc"):
            with contextlib.suppress(OSError):
                words = Path(entry, "cmdline").read_text() if entry.name.isdigit() else ""
                if (
                    script in words and f"{self.folder}/spool" in words
                ):  # other clusters have jobs of that number
                    os.kill(int(entry.name), signal.SIGKILL)

    def start_controller(self) -> None:
        self._spawn(
            "slurmctld", "slurmctld", "-D", *([] if (self.folder / "state/job_state").exists() else ["-c"])
        )
        self._wait("slurmctld", lambda: _listens(self.controller_port))

    def stop_controller(self) -> None:
        process = self.processes.pop("slurmctld")
        process.terminate()
        process.wait(30)

    def _start_munge(self) -> None:
        folder, run = self.folder, self.folder / "run"
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        files = {"key-file": key, "socket": run / "munge.socket", "pid-file": run / "munged.pid"}
        files |= {"log-file": folder / "log/munged.log", "seed-file": run / "munged.seed"}
        self._spawn("munged", "munged", "-F", "--force", *(f"--{k}={v}" for k, v in files.items()))
        self._wait(
            "munge", lambda: self.run("munge", "-S", str(run / "munge.socket"), "-n", check=False) != ""
        )

    def _start_accounting(self, sql: int, database: int) -> None:
        data, user = self.folder / "db", "root"
        data.mkdir()
        self.run(
            *("mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={data}", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
        )
        self._spawn(
            *(
                "mariadbd",
                "mariadbd",
                "--no-defaults",
                f"--user={user}",
                f"--datadir={data}",
                f"--port={sql}",
            ),
            *(
                f"--socket={self.folder}/run/sql",
                "--bind-address=127.0.0.1",
                f"--pid-file={self.folder}/run/sql.pid",
            ),
            *("--skip-name-resolve", "--skip-log-bin", "--innodb-buffer-pool-size=64M"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"),
        )
        self._wait("mariadbd", lambda: _listens(sql))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: _listens(database))

    def _spawn(self, name: str, *command: str) -> None:
        with open(self.folder / "log" / f"{name}.out", "ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=end_with_tests,
            )

    def _wait(
        self, what: str, condition: Callable[[], bool], timeout_s: float = 30, every_s: float = 0.1
    ) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if condition():
                return
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise AssertionError(
                        f"{name} ended while waiting for {what}: see {self.folder}/log/{name}.out"
                    )
            time.sleep(every_s)
        raise AssertionError(f"no {what} within {timeout_s:.0f} s\n{self.run('squeue', '-a', check=False)}")


def end_with_tests() -> None:
    """Have the kernel kill a daemon when the tests are killed, so that none is left behind."""
    signal_on_parents_death(signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
