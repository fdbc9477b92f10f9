"""The jobs that steps start: tokenisation, our pretraining command, and scripts of the peers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import ROOT, Bench, Failed, tail

from nemolaunch.job import spec_of

DOOR = ROOT / "train" / "llm" / "pretrain" / "pretrain_llm.py"
LLAMA_3_VOCABULARY = 128_256
WARM_UP = 5  # steps not counted: compilation, allocation, choice of kernels
TINY = {
    "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2, "ffn_hidden_size": 128,
    "seq_length": 64, "init_method_std": 0.02,
}  # fmt: skip
TINY_LAYERS = 4


def model(bench: Bench, recipe: str, layers: int | None = None) -> str:
    """Return the recipe's name, or a YAML file of it with another number of layers or tiny shapes."""
    changes: dict[str, Any] = {"num_layers": layers} if layers else {}
    if bench.tiny:
        changes = {**TINY, "num_layers": min(layers or TINY_LAYERS, TINY_LAYERS)}
    if not changes:
        return recipe
    path = bench.work / f"{recipe}-{changes['num_layers']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}: {value}\n" for key, value in {"base": recipe, **changes}.items()))
    return str(path)


def seq_length(bench: Bench, wanted: int = 8192) -> int:
    """Return the number of tokens in a sequence."""
    return 64 if bench.tiny else wanted


def tokenizer(bench: Bench) -> Path:
    """Return the sample tokenizer, padded to Llama 3's vocabulary size so that the model is as large."""
    source = ROOT / "examples" / "tokenizer"
    if bench.tiny:
        return source
    target = bench.work / "tokenizer"
    if not target.exists():
        half = target.with_name("tokenizer.tmp")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half)
        content = json.loads((half / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        used = max([*vocabulary.values(), *(token["id"] for token in content["added_tokens"])]) + 1
        vocabulary.update({f"<unused {i}>": i for i in range(used, LLAMA_3_VOCABULARY)})
        (half / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        half.rename(target)
    return target


def data_folder(bench: Bench) -> Path:
    """Return the folder of the tokenised data."""
    return bench.work / "data"


def data(bench: Bench) -> Path:
    """Tokenise the sample corpus with our own command, once. Return its folder."""
    target = data_folder(bench)
    if not target.exists():
        half = target.with_name("data.tmp")
        shutil.rmtree(half, ignore_errors=True)
        words = ["--hf-tokenizer", str(tokenizer(bench)), "--data-prefix", "sample"]
        words += ["--input-dir", str(ROOT / "examples" / "corpus"), "--output-dir", str(half)]
        finished(bench, "tokenise", [sys.executable, "-m", "nemolaunch.cli.commands.tokenize", *words])
        half.rename(target)
    return target


def base_flags(bench: Bench, model_name: str, **flags: Any) -> dict[str, Any]:
    """Return the flags of a job on the sample data, by name; `flags` take precedence."""
    return {
        "model_name": model_name,
        "hf_model_id": tokenizer(bench),
        "dataset_dir": data_folder(bench),
        "num_gpus": 1,
        "device": bench.device,
        "seq_length": seq_length(bench),
        "global_batch_size": 4,
        "split": "100,0,0",
        "limit_val_batches": 0,
        "lr": 1e-4,
        "warmup_steps": 2,
        "max_steps": 100_000,
        **flags,
    }


def words_of(flags: dict[str, Any]) -> list[str]:
    """Return flags such as `{"fp8": True, "max_steps": 3}` as typed, without those not given."""
    words: list[str] = []
    for name, value in flags.items():
        if value is False and spec_of(name).default is not False:
            words.append("--no-" + name.replace("_", "-"))
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    return words


def finished(bench: Bench, name: str, command: list[str], device: str | None = None) -> str:
    """Run a command. Return its output.

    Raises:
        Failed: it failed, or the step ran out of time.
    """
    log = bench.logs / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, cwd=ROOT, env=bench.variables(device),
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(max(1.0, bench.left_s))
        except subprocess.TimeoutExpired:
            raise Failed("the step ran out of time before it ended", tail(log)) from None
        finally:
            _end(process)
    if code:
        raise Failed(f"exit code {code}", tail(log))
    return log.read_text(errors="replace")


def pretrain(
    bench: Bench,
    name: str,
    flags: dict[str, Any],
    stop_at: int | None = None,
    variables: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Run our command in `work/runs/NAME`. Return the rows of its metrics that have a loss.

    Args:
        stop_at: interrupt it like Ctrl-C after this step, so that no checkpoint is saved.

    Raises:
        Failed: it failed, or the step ran out of time.
    """
    data(bench)
    run = bench.work / "runs" / name
    log = bench.logs / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Concurrent jobs would otherwise write the same index files
    own = {"output_dir": run, "index_mapping_dir": run / "index"}
    command = [sys.executable, str(DOOR), *words_of({**flags, **own})]
    if stop_at:  # the predictions are what is measured, and no checkpoint will need space
        command += ["--force", "gpu-memory", "--force", "disk"]
    environment = {**bench.variables(str(flags["device"])), **(variables or {})}
    before = len(rows(run))
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            code = _watched(bench, process, run, stop_at)
        finally:
            _end(process)
    taken = rows(run)[before:]
    if code and not (stop_at and taken and taken[-1]["step"] >= stop_at):
        raise Failed(f"the job ended with exit code {code}", tail(log, run / "logs" / "rank0.log"))
    return [row for row in taken if not stop_at or row["step"] <= stop_at]


def _watched(bench: Bench, process: subprocess.Popen[bytes], run: Path, stop_at: int | None) -> int:
    while (code := process.poll()) is None:
        taken = rows(run)
        if bench.left_s <= 0:
            raise Failed("the step ran out of time before it ended", tail(run / "logs" / "rank0.log"))
        if stop_at and taken and taken[-1]["step"] >= stop_at:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(60)
            return -signal.SIGKILL
        time.sleep(0.2)
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate what is left of a command, gently at first so that ours ends its job."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the complete rows of a run's metrics that have a loss."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    parsed = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in parsed if "loss" in row]


def figures(taken: list[dict[str, Any]], warm_up: int = WARM_UP) -> dict[str, Any]:
    """Return the medians of a run's own metrics after the warm-up steps."""
    counted = taken[warm_up:] or taken
    names = (
        "step_time_s", "tokens_per_s_per_gpu", "tflops_per_gpu", "tflops_per_gpu_causal", "mfu", "mfu_causal"
    )  # fmt: skip
    found: dict[str, Any] = {
        name: statistics.median(row[name] for row in counted)
        for name in names
        if all(isinstance(row.get(name), (int, float)) for row in counted)
    }
    return {
        **found,
        "memory_peak_bytes": max(row["memory_peak_bytes"] for row in taken),
        "steps": len(counted),
        "first_loss": taken[0]["loss"],
        "last_loss": taken[-1]["loss"],
    }


def checkpoint(run: Path, step: int) -> Path:
    """Return the checkpoint that a run saved after step `step`. Raises `Failed` if there is none."""
    found = [p for p in (run / "checkpoints").glob(f"*--step={step - 1}-*") if not p.name.endswith("-last")]
    if not found:
        raise Failed(f"{run} has no checkpoint of step {step}")
    return found[0]
