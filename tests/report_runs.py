"""Run folders with metrics as a run writes them, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from check_jobs import TOKENIZER, write_data

from nemolaunch.job import Job
from nemolaunch.planning import make_plan


def write_run(folder: Path, rows: list[dict[str, Any]], **values: Any) -> Path:
    """Write a run folder with a real plan and these metrics."""
    folder.mkdir()
    data = folder.parent / "data"
    data.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {
        "model_name": "nano",
        "hf_model_id": TOKENIZER,
        "dataset_dir": [write_data(data)],
    }
    defaults |= {"output_dir": str(folder), "global_batch_size": 16, "seq_length": 256, "max_steps": 100}
    make_plan(Job().with_values(**{**defaults, **values})).save()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def step(number: int, loss: float) -> dict[str, Any]:
    """Return a row as a run writes it."""
    return {
        "step": number, "time": 1000.0 + number, "loss": loss, "lr": 1e-3, "grad_norm": 1.0,
        "samples": 16 * number, "tokens": 4096 * number, "step_time_s": 0.5, "tokens_per_s": 8192.0,
        "data_wait_s": 0.01, "memory_peak_bytes": 3 * 2**30,
    }  # fmt: skip


def start(number: int = 0) -> dict[str, Any]:
    return {"event": "start", "step": number, "max_steps": 100, "time": 1000.0 + number}
