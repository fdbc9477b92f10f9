"""Evaluate the checkpoints of a run as they appear, and append the results to the run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch.errors import NemolaunchError
from nemolaunch.evaluation.tensorboard import log_evaluation
from nemolaunch.run.folder import RunDir, step_of
from nemolaunch.system.atomic_files import append_text

MADE_ROOM = (
    "it made room for newer checkpoints before it was evaluated; a higher --keep-latest keeps it longer"
)
MOST_TRIES = (
    3  # of one checkpoint: a framework may write its last files after it calls the checkpoint complete
)
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """The evaluations of each checkpoint.

    Each value holds the arguments of a command, `nemolaunch eval ppl`, `eval mlm`, `eval lm` or `generate`, without
    the checkpoint; None skips the command. `trust_remote_code`: run code in the tokenizer's folder, if it has any.
    """

    ppl: list[str] | None = None
    mlm: list[str] | None = None
    lm: list[str] | None = None
    generate: list[str] | None = None
    trust_remote_code: bool = False


RequestAt = Callable[[int], EvaluationRequest | None]


def evaluated(run: RunDir) -> set[str]:
    """Return the names of the checkpoints that have already been evaluated."""
    return {str(row["checkpoint"]) for row in read(run)}


def read(run: RunDir) -> list[dict[str, Any]]:
    """Read the run's evaluations, skipping incomplete rows."""
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


def watch(
    run: RunDir, request_at: RequestAt, *, is_over: Callable[[], bool], poll_s: float, say: Say
) -> Iterator[dict[str, Any]]:
    """Yield a row for each new checkpoint, until the run is over and all are evaluated.

    Each evaluation runs in its own process, so that running out of memory does not end the watch.

    Args:
        request_at: returns the evaluations of the checkpoint after a step; None for none.
    """
    tries: Counter[str] = Counter()
    while True:
        over = is_over()
        known = evaluated(run) | {name for name, count in tries.items() if count >= MOST_TRIES}
        new = [path for path in run.complete_checkpoints() if path.name not in known]
        todo = [(path, request) for path in new if (request := request_at(step_of(path) + 1))]
        for checkpoint, request in todo:
            say(f"evaluating {checkpoint.name}")
            try:
                row = evaluate(checkpoint, request, say)
            except (NemolaunchError, OSError) as error:
                tries[checkpoint.name] += 1
                gone = checkpoint not in run.complete_checkpoints()
                say(f"{checkpoint.name}: {MADE_ROOM if gone else error}")
                time.sleep(poll_s)
                continue
            append(run, row)
            log_evaluation(run, row)
            yield row
        if over and not todo:
            return
        if not todo:
            time.sleep(poll_s)


def evaluate(checkpoint: Path, request: EvaluationRequest, say: Say) -> dict[str, Any]:
    """Evaluate one checkpoint, which is exported once. Return its row.

    Raises:
        NemolaunchError: the checkpoint cannot be exported or evaluated.
    """
    from nemolaunch.evaluation.source import hf_folder

    row: dict[str, Any] = {
        "step": step_of(checkpoint) + 1,
        "time": time.time(),
        "checkpoint": checkpoint.name,
    }
    trusted = request.trust_remote_code
    with hf_folder(checkpoint, say=say, trust_remote_code=trusted) as folder:
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
    """Run a nemolaunch command and parse its JSON output, a single object or one per line."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "nemolaunch.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
        errors.seek(0)
        messages = errors.read().strip().splitlines()
    if done.returncode:
        reason = next(
            (line for line in reversed(messages) if line.startswith("error: ")),
            messages[-1] if messages else "",
        )
        raise NemolaunchError(f"nemolaunch {words[0]} {words[1]} failed: {reason.removeprefix('error: ')}")
    return [json.loads(line) for line in done.stdout.splitlines()] if many else json.loads(done.stdout)


def append(run: RunDir, row: dict[str, Any]) -> None:
    """Append a row atomically: a single write, then fsync."""
    append_text(run.evaluations, json.dumps(row, ensure_ascii=False) + "\n")
