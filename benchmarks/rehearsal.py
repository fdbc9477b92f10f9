"""Measure tokens per second of a CPU rehearsal against a plain torch loop on the same model and batches.

    python benchmarks/rehearsal.py [--rounds 3] [--steps 30] [--threads 2]

Both train in one process and take turns step by step, so that other load on the machine affects both. The
plain loop starts from the rehearsal's weights and gets its batches and learning rates; equal losses show that
both do the same work. NeMo's time covers its whole loop: data, schedule, logging, callbacks.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from startup import TOKENIZER, tokenise

MODEL = """\
base: llama3_8b
num_layers: 8
hidden_size: 256
num_attention_heads: 8
num_query_groups: 4
ffn_hidden_size: 704
seq_length: 512
init_method_std: 0.02
"""
WARM_UP = 5
BATCH = 4


def prepared(folder: Path, data: str, precision: str, steps: int) -> str:
    """Prepare a run of `steps` steps in `folder`. Return the path of its plan."""
    from nemolaunch.job import Job
    from nemolaunch.launching.prepare import prepare
    from nemolaunch.planning import make_plan

    (folder / "llama-10m.yaml").write_text(MODEL)
    job = Job().with_values(
        model_name=str(folder / "llama-10m.yaml"),
        hf_model_id=TOKENIZER,
        dataset_dir=[data],
        output_dir=str(folder / f"run-{precision}-{time.time_ns()}"),
        precision=precision,
        micro_batch_size=BATCH,
        global_batch_size=BATCH,
        max_steps=steps,
        lr=1e-3,
        min_lr=1e-4,
        warmup_steps=2,
        limit_val_batches=0,
    )
    plan = make_plan(job)
    prepare(plan)
    return str(plan.run.plan)


def take_turns(plan_file: str) -> dict[str, Any]:
    """Train the plan, with a plain step after each of its own. Return step times and losses of both."""
    import torch
    from lightning.pytorch import Callback

    from nemolaunch.nemo2.entry import run_plan
    from nemolaunch.planning import Plan

    plan = Plan.load(Path(plan_file))
    found: dict[str, Any] = {"ours_s": [], "plain_s": [], "ours_loss": [], "plain_loss": []}

    class Turns(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            model = _megatron_model(trainer)
            self.optimizer = trainer.optimizers[0]
            self.plain = _plain_training(model, plan, self.optimizer.param_groups[0])
            model.register_forward_pre_hook(self.note, with_kwargs=True)
            self.since = time.perf_counter()

        def note(self, model: Any, arguments: Any, given: dict[str, Any]) -> None:
            named = inspect.signature(model.forward).bind(*arguments, **given).arguments
            self.batch = named["input_ids"], named["labels"], self.optimizer.param_groups[0]["lr"]

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            ours_done = time.perf_counter()
            found["plain_loss"].append(self.plain.step(*self.batch))
            plain_done = time.perf_counter()
            found["ours_s"].append(ours_done - self.since)
            found["plain_s"].append(plain_done - ours_done)
            found["ours_loss"].append(float(trainer.callback_metrics["reduced_train_loss"]))
            self.since = time.perf_counter()

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    run_plan(plan, callbacks=(Turns(),))
    return found


def _megatron_model(trainer: Any) -> Any:
    """Return Megatron's GPT model, without NeMo's, Lightning's and Megatron's wrappers."""
    from megatron.core.models.gpt import GPTModel

    (model,) = [m for m in trainer.strategy.megatron_parallel.modules() if isinstance(m, GPTModel)]
    return model


def _plain_training(model: Any, plan: Any, adam: dict[str, Any]) -> Any:
    """Return the plain loop, with the model's weights, number format and Adam settings."""
    import torch
    from plain_llama import Llama, Training

    a = plan.model_row.architecture
    weights = dict(model.named_parameters())
    plain = Llama(
        vocabulary=len(weights["embedding.word_embeddings.weight"]),
        layers=a.num_layers,
        hidden=a.hidden_size,
        heads=a.num_attention_heads,
        groups=a.num_query_groups,
        ffn=a.ffn_hidden_size,
        length=plan.seq_length,
        base=a.rotary_base,
        eps=a.layernorm_epsilon,
    )
    plain.copy_from(weights)
    dtype = torch.float32 if plan.job.batch.precision == "fp32" else torch.bfloat16
    return Training(plain, dtype, adam["betas"], adam["eps"])


def measure(folder: Path, data: str, precision: str, steps: int, threads: int) -> dict[str, Any]:
    """Run one round in a separate process, the only rank of its job."""
    result = folder / "result.json"
    plan = prepared(folder, data, precision, steps)
    environment = dict.fromkeys(("RANK", "LOCAL_RANK", "NODE_RANK"), "0")
    environment |= {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "TORCHELASTIC_RUN_ID": "one"}
    environment |= {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    with open(folder / "log", "ab") as log:
        subprocess.run(
            [sys.executable, __file__, "--plan", plan, "--result", str(result)],
            check=True,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        )
    return dict(json.loads(result.read_text()))


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def main() -> None:
    """Measure, and print a table; with `--plan`, run one round."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3, help="processes per number format")
    arguments.add_argument("--steps", type=int, default=30, help=f"the first {WARM_UP} are not counted")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--plan", help=argparse.SUPPRESS)
    arguments.add_argument("--result", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.plan:
        Path(given.result).write_text(json.dumps(take_turns(given.plan)))
        return
    table = Table(title=f"Llama of 10.6M parameters, {BATCH} x 512 tokens per step, {given.threads} threads")
    headings = ("format", "rehearsal tokens/s", "plain torch tokens/s", "ratio", "each round", "loss diff")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "format" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenise(name)
        for precision in ("fp32", "bf16"):
            size = given.steps, given.threads
            rounds = [measure(folder, name, precision, *size) for _ in range(given.rounds)]
            table.add_row(precision, *_summary(rounds))
    Console().print(table)


def _summary(rounds: list[dict[str, Any]]) -> list[str]:
    def middle(of: list[dict[str, Any]], key: str) -> float:
        return statistics.median(seconds for found in of for seconds in found[key][WARM_UP:])

    ours, plain = middle(rounds, "ours_s"), middle(rounds, "plain_s")
    ratios = [middle([found], "plain_s") / middle([found], "ours_s") for found in rounds]
    apart = max(abs(a - b) for r in rounds for a, b in zip(r["ours_loss"], r["plain_loss"], strict=True))
    tokens = BATCH * 512
    return [
        f"{tokens / ours:,.0f}",
        f"{tokens / plain:,.0f}",
        f"{plain / ours:.2f}",
        " ".join(f"{ratio:.2f}" for ratio in ratios),
        f"{apart:.1e}",
    ]


if __name__ == "__main__":
    main()
