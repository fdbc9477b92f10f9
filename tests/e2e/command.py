"""The pretraining command as users type it: a process of its own, with torchrun and two ranks below it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from e2e.jobs import LLAMA, TOKENIZER

ROOT = Path(__file__).parents[2]
DOOR = str(ROOT / "train" / "llm" / "pretrain" / "pretrain_llm.py")
TIMEOUT_S = 400  # for what takes half a minute where nothing else runs
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}


def words(folder: Path, data: str, *more: str) -> list[str]:
    """A small job on two processes, in a run folder of its own under `folder`."""
    model = folder / "small-llama.yaml"
    model.write_text(LLAMA)
    job = ["-M", str(model), "--dataset-dir", data, "--hf-model-id", TOKENIZER]
    job += ["--output-dir", str(folder / "run"), "-G", "2", "-gbs", "8"]
    job += ["--lr", "1e-3", "--min-lr", "1e-4", "--warmup-steps", "1", "--precision", "fp32"]
    return [sys.executable, DOOR, *job, *more]


def pretrain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments to its end."""
    return finished([sys.executable, DOOR, *arguments], cwd)


def cut_off() -> list[str]:
    """What to put before a command so that it has no network and no name that resolves; nothing without root."""
    namespaces = ["unshare", "--net", "--uts"]
    if not shutil.which("ip") or subprocess.run([*namespaces, "true"], stderr=subprocess.DEVNULL).returncode:
        return []
    inside = 'hostname no-such-host.invalid && ip link set lo up && exec "$@"'
    return [*namespaces, "sh", "-c", inside, "sh"]


def finished(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def started(command: list[str], cwd: Path) -> subprocess.Popen[str]:
    """Start a command, with what it prints in `out` and `err`."""
    with open(cwd / "out", "w") as out, open(cwd / "err", "w") as err:
        return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=out, stderr=err, text=True)


def wait_for(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is true; an AssertionError if the process ends first, or it takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while not what():
        assert process.poll() is None, f"the command ended with {process.returncode}"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def processes_about(folder: Path, variable: str = "") -> dict[int, str]:
    """Command lines of the processes whose arguments or environment name the folder, and set the variable."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:  # it has ended, or is somebody else's
            continue
        if str(folder).encode() in arguments + environment and variable.encode() in environment:
            found[int(entry.name)] = arguments.replace(b"\0", b" ").decode(errors="replace")
    return found


def with_other_ids(folder: Path, data: str) -> Path:
    """A folder with data of the same documents, and token ids that no small vocabulary has."""
    (prefix,) = (path.with_suffix("") for path in Path(data).rglob("*.idx"))
    folder.mkdir()
    (folder / "text.idx").write_bytes(prefix.with_suffix(".idx").read_bytes())
    np.full(prefix.with_suffix(".bin").stat().st_size // 2, 60000, np.uint16).tofile(folder / "text.bin")
    return folder
