"""A login node and a laptop on one machine: a real sshd, and commands that see nothing of the cluster but it.

The laptop is a mount name space with an ssh configuration of its own, in which the cluster's files and Slurm's
commands are covered up.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm.cluster import Cluster, end_with_tests, free_ports

SLURM_COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo", "sacct", "scancel", "srun")
SSHD = "/usr/sbin/sshd"


def why_not() -> str | None:
    """Why there can be no login node here, or None."""
    missing = [name for name in (SSHD, "ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (Debian: openssh-server rsync)" if missing else None


class Login:
    """Starts sshd; `home` is where its sessions begin, `files` is what only the cluster sees.

    Args:
        folder: empty; everything lives in it.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.files, self.laptop, self.home = (
            folder / "cluster",
            folder / "laptop",
            folder / "cluster" / "home",
        )
        for path in (self.home, self.laptop / "ssh", self.laptop / "work"):
            path.mkdir(parents=True)
        (self.port,) = free_ports(1)
        self._keys(folder)
        inside = f'cd {shlex.quote(str(self.home))} && exec sh -c "$SSH_ORIGINAL_COMMAND"'
        config = f"""\
ListenAddress 127.0.0.1
Port {self.port}
HostKey {folder}/host
AuthorizedKeysFile {self.laptop}/ssh/id.pub
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
SetEnv SLURM_CONF={cluster.environment["SLURM_CONF"]} HOME={self.home}
ForceCommand {inside}
"""
        (folder / "sshd_config").write_text(config)
        Path("/run/sshd").mkdir(exist_ok=True)
        with open(folder / "sshd.log", "wb") as log:
            self._sshd = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, preexec_fn=end_with_tests
            )
        self._wait(folder / "sshd.log")

    def _keys(self, folder: Path) -> None:
        for name in (folder / "host", self.laptop / "ssh" / "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(name)], check=True)
        host_key = (folder / "host.pub").read_text()
        (self.laptop / "ssh" / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        (self.laptop / "ssh" / "config").write_text(
            f"Host cluster\n HostName 127.0.0.1\n Port {self.port}\n User root\n IdentityFile ~/.ssh/id\n"
        )

    def _wait(self, log: Path) -> None:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(f"sshd does not answer: {log.read_text()}")

    def close(self) -> None:
        """Stop sshd, and the sessions it has."""
        self._sshd.terminate()
        self._sshd.wait()

    def command(self, *words: object) -> list[str]:
        """`nemolaunch …` as it is run on the laptop."""
        ssh = Path.home() / ".ssh"
        hide = [f"mount --bind /bin/false $(command -v {name})" for name in SLURM_COMMANDS]
        script = [
            f"mkdir -p {ssh}",
            f"mount --bind {shlex.quote(str(self.laptop / 'ssh'))} {ssh}",
            f"mount -t tmpfs none {shlex.quote(str(self.files))}",
            *hide,
            'exec "$@"',
        ]
        own = [sys.executable, "-m", "nemolaunch.cli.main", *map(str, words)]
        return ["unshare", "--mount", "sh", "-ec", "\n".join(script), "sh", *own]

    def run(self, *words: object, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        """Output of a command on the laptop."""
        done = subprocess.run(
            self.command(*words), **self.options(environment), capture_output=True, timeout=300, check=False
        )  # type: ignore[call-overload]
        if check and done.returncode:
            raise AssertionError(f"{words}: {done.stderr}{done.stdout}")
        return str(done.stdout) + ("" if check else str(done.stderr))

    def start(
        self, words: Sequence[object], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """A command on the laptop that goes on."""
        return subprocess.Popen(
            self.command(*words),
            **self.options(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # type: ignore[call-overload]

    def options(self, environment: Mapping[str, str] | None) -> dict[str, object]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        return {"cwd": self.laptop / "work", "env": {**kept, **(environment or {})}, "text": True}
