"""Evaluates the checkpoints of a run as they appear, and appends the figures to the run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.run.folder import RunDir, step_of, unfinished
from nemolaunch.system.atomic_files import append_text

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to do with each checkpoint: words of `nemolaunch eval ppl`, `eval mlm`, `eval lm` and `generate` after
    the checkpoint; None leaves that out."""

    ppl: list[str] | None = None
    mlm: list[str] | None = None
    lm: list[str] | None = None
    generate: list[str] | None = None


def complete_checkpoints(run: RunDir) -> list[Path]:
    """Checkpoints saved to the end, by step."""
    if not run.checkpoints.is_dir():
        return []
    found = [p for p in run.checkpoints.iterdir() if not p.is_symlink() and (p / "weights").is_dir()]
    return sorted((p for p in found if not unfinished(p)), key=lambda p: (step_of(p), p.name))


def evaluated(run: RunDir) -> set[str]:
    """Names of the checkpoints that have a row already."""
    return {str(row["checkpoint"]) for row in read(run)}


def read(run: RunDir) -> list[dict[str, Any]]:
    """All rows of the run's evaluations; a torn one is passed over."""
    rows = []
    try:
        lines = run.evaluations.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "checkpoint" in row:
            rows.append(row)
    return rows


def watch(run: RunDir, request: Request, *, once: bool, poll_s: float, say: Say) -> Iterator[dict[str, Any]]:
    """Rows as they are made. Ends when each checkpoint has one and the run has finished, or with `once`.

    Each evaluation is a process of its own, so that one that runs out of memory does not end the watch.
    """
    failed: set[str] = set()
    while True:
        over = once or run.finished.exists()
        todo = [p for p in complete_checkpoints(run) if p.name not in evaluated(run) | failed]
        for checkpoint in todo:
            say(f"evaluating {checkpoint.name}")
            try:
                row = evaluate(checkpoint, request, say)
            except NemolaunchError as error:
                say(f"{checkpoint.name}: {error}")
                failed.add(checkpoint.name)
                continue
            append(run, row)
            yield row
        if over and not todo:
            return
        if not todo:
            time.sleep(poll_s)


def evaluate(checkpoint: Path, request: Request, say: Say) -> dict[str, Any]:
    """One checkpoint's row: exported once, then everything asked for.

    Raises:
        NemolaunchError: it could not be exported or evaluated, with the reason.
    """
    from nemolaunch.evaluation.source import hf_folder

    row: dict[str, Any] = {
        "step": step_of(checkpoint) + 1,
        "time": time.time(),
        "checkpoint": checkpoint.name,
    }
    with hf_folder(checkpoint, say=say) as folder:
        if request.ppl is not None:
            found = _call(["eval", "ppl", str(folder), *request.ppl, "--json"])
            row |= {f"eval_{key}": found[key] for key in ("perplexity", "bits_per_byte", "nats_per_token")}
            row["ppl_of"] = {key: found[key] for key in ("data", "tokens", "context_length", "stride")}
        if request.mlm is not None:
            found = _call(["eval", "mlm", str(folder), *request.mlm, "--json"])
            row |= {f"eval_{key}": found[key] for key in ("masked_accuracy", "masked_loss")}
            row["mlm_of"] = {key: found[key] for key in ("data", "masked_tokens", "context_length")}
        if request.lm is not None:
            row["tasks"] = _call(["eval", "lm", str(folder), *request.lm, "--json"])["tasks"]
        if request.generate is not None:
            row["samples"] = _call(["generate", str(folder), *request.generate, "--json"], many=True)
    return row


def _call(words: list[str], *, many: bool = False) -> Any:
    """What a command of ours prints as JSON, one object or one a line."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "nemolaunch.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
        errors.seek(0)
        told = errors.read().strip().splitlines()
    if done.returncode:
        reason = next(
            (line for line in reversed(told) if line.startswith("error: ")), told[-1] if told else ""
        )
        raise NemolaunchError(f"nemolaunch {words[0]} {words[1]} failed: {reason.removeprefix('error: ')}")
    return [json.loads(line) for line in done.stdout.splitlines()] if many else json.loads(done.stdout)


def append(run: RunDir, row: dict[str, Any]) -> None:
    """Add a row, whole: one write, then fsync."""
    append_text(run.evaluations, json.dumps(row, ensure_ascii=False) + "\n")
