"""What the steps share: where a step runs, how long it may take, and how its results are kept."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemolaunch.facts import installed_versions, look_at_host
from nemolaunch.system.atomic_files import write_json

ROOT = Path(__file__).resolve().parents[2]
SHOWN_LINES = 40  # of a log, kept in a result


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where a step runs, and for how long.

    Attributes:
        device: `gpu` or `cpu`, as for the job's `--device`.
        tiny: use shapes that a CPU trains in seconds, to test the steps.
        work: scratch folder for data and runs.
        results: where results go.
        env: the environment that `install.py` made; None for the one that runs this.
        seconds: time limit of a step; no row starts after it.
    """

    device: str
    tiny: bool
    work: Path
    results: Path
    env: Path | None
    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until the step must end."""
        return self.began + self.seconds - time.monotonic()

    @property
    def logs(self) -> Path:
        """Folder for the output of jobs."""
        return self.work / "logs"

    def state(self) -> dict[str, Any]:
        """Return what `install.py` found to work; empty without its environment."""
        if self.env is None or not (self.env / "environment.json").exists():
            return {}
        return dict(json.loads((self.env / "environment.json").read_text()))

    def transformer_engine(self) -> str | None:
        """Return the version of Transformer Engine that GPU jobs use, or None."""
        if self.device != "gpu":
            return None
        return self.state().get("transformer_engine") or installed_versions().get("transformer-engine")

    def variables(self, device: str | None = None) -> dict[str, str]:
        """Return the environment of a job, with Transformer Engine for a GPU and without GPUs for a CPU."""
        variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
        path = [str(ROOT / "src"), str(ROOT / "benchmarks"), str(Path(__file__).parent)]
        state = self.state()
        if (device or self.device) == "cpu":
            variables["CUDA_VISIBLE_DEVICES"] = ""
        elif state.get("transformer_engine") and self.env is not None:
            path.insert(0, str(self.env / "te"))
            variables.update(state.get("variables", {}))
        variables["PYTHONPATH"] = os.pathsep.join(path)
        return variables


@dataclass(frozen=True)
class Row:
    """One measurement of a step: its name, its description, and the function that takes it."""

    name: str
    what: str
    run: Callable[[], dict[str, Any]]


class Failed(Exception):
    """A job did not do what it should. `log` is the end of its output."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def tail(*paths: Path) -> str:
    """Return the last lines of the logs that exist, each under its name."""
    parts = []
    for path in paths:
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
            parts.append(f"--- {path.name}\n" + "\n".join(line[:400] for line in lines))
    return "\n".join(parts)


def take(bench: Bench, step: str, rows: list[Row], summary: Callable[[list[dict[str, Any]]], Any]) -> Path:
    """Take all rows of a step, even if some fail, and write results after each. Return their path."""
    began = datetime.datetime.now(datetime.timezone.utc)
    bench.results.mkdir(parents=True, exist_ok=True)
    file = bench.results / f"{step}-{began:%Y%m%dT%H%M%S}.json"
    record: dict[str, Any] = {"step": step, "date": began.isoformat(timespec="seconds"), **about(bench)}
    taken: list[dict[str, Any]] = []
    for row in rows:
        print(f"{step}: {row.name} …", flush=True)
        taken.append(_take_row(bench, row))
        write_json(file, {**record, "seconds": round(time.monotonic() - bench.began), "rows": taken})
        print(f"{step}: {row.name}: {_sentence(taken[-1])}", flush=True)
    try:
        record["summary"] = summary([row for row in taken if "error" not in row])
    except Exception as error:
        record["summary_error"] = f"{type(error).__name__}: {error}"
    write_json(file, {**record, "seconds": round(time.monotonic() - bench.began), "rows": taken})
    return file


def _take_row(bench: Bench, row: Row) -> dict[str, Any]:
    base = {"name": row.name, "what": row.what}
    if bench.left_s <= 0:
        return {**base, "error": f"not started: the step's {bench.seconds:.0f} s were over"}
    start = time.monotonic()
    try:
        found = row.run()
    except Failed as failure:
        found = {"error": str(failure), "log": failure.log}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "log": traceback.format_exc()}
    return {**base, **found, "took_s": round(time.monotonic() - start, 1)}


def _sentence(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"FAILED: {row['error']}\n{row.get('log', '')}"
    shown = {k: v for k, v in row.items() if isinstance(v, (int, float, str)) and k not in ("name", "what")}
    return ", ".join(f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def about(bench: Bench) -> dict[str, Any]:
    """Return versions and hardware, for the record."""
    host = look_at_host()
    return {
        "device": bench.device,
        "tiny": bench.tiny,
        "gpus": list(host.gpus) if bench.device == "gpu" else [],
        "gpu_memory_bytes": host.gpu_memory_bytes if bench.device == "gpu" else 0,
        "cpus": host.num_cpus,
        "machine": platform.machine(),
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "versions": {**installed_versions(), "transformer-engine": bench.transformer_engine()},
        "python": sys.executable,
    }


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
