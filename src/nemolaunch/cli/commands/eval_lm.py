"""`nemolaunch eval lm`: benchmarks of EleutherAI's lm-eval."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nemolaunch.cli.commands.eval_ppl import add_result_flags, note, print_result
from nemolaunch.cli.commands.generate import add_model_flags

EXAMPLE = "nemolaunch eval lm runs/pretraining --tasks hellaswag,arc_easy --batch-size 4"


def add(kinds: Any) -> None:
    """Add the sub-command."""
    p = kinds.add_parser(
        "lm",
        help="lm-eval benchmarks: hellaswag, mmlu, …",
        description="Run benchmarks of EleutherAI's lm-eval. A checkpoint of NeMo 2 or Bridge is exported first. "
        "The results are saved beside the checkpoint as CHECKPOINT.lm-eval.json.",
        example=EXAMPLE,
    )
    add_model_flags(p)
    add_task_flags(p, required=True)
    p.add_argument("--batch-size", default="1", metavar="N", help="questions per batch, or auto")
    p.add_argument("--limit", type=int, metavar="N", help="use only the first N questions of each task")
    add_result_flags(p)
    p.set_defaults(run=run)


def add_task_flags(p: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the flags that select benchmarks."""
    add = p.add_argument
    add("--tasks", required=required, metavar="A,B", help="lm-eval task names or task files")
    add("--include-path", type=Path, metavar="DIR", help="folder with custom task files")
    add("--num-fewshot", type=int, metavar="N", help="few-shot examples per question (default: the task's)")
    add("--apply-chat-template", action="store_true", help="format questions with the model's chat template")


def run(args: argparse.Namespace) -> int:
    """Run the benchmarks and print a table. Return the exit code."""
    from nemolaunch.evaluation import harness
    from nemolaunch.evaluation.source import find_checkpoint, hf_folder

    wanted = harness.Benchmarks(
        tasks=tuple(filter(None, args.tasks.split(","))),
        include=args.include_path,
        num_fewshot=args.num_fewshot,
        batch_size=args.batch_size,
        limit=args.limit,
        chat_template=args.apply_chat_template,
    )
    checkpoint = find_checkpoint(args.checkpoint)
    trusted = args.trust_remote_code
    note("loading the model and the tasks …")  # which then show their own progress
    with hf_folder(checkpoint, say=note, trust_remote_code=trusted) as folder:
        results = harness.run(
            folder,
            wanted,
            dtype=args.dtype,
            tokenizer=args.tokenizer,
            trust_remote_code=trusted,
        )
    table = harness.figures(results)
    result = {
        "checkpoint": str(checkpoint),
        "tasks": table,
        "limit": args.limit,
        "versions": results.get("versions", {}),
        "lm_eval_version": results.get("lm_eval_version"),
    }
    args.output = args.output or checkpoint.absolute().with_name(checkpoint.absolute().name + harness.RESULTS)
    print_result(args, result, lines(table))
    return 0


def lines(table: dict[str, dict[str, Any]]) -> str:
    """Format the results as a table."""
    rows = [("task", "shots", "metric", "value", "± stderr")]
    for task, row in table.items():
        for metric, value in row.items():
            if metric in ("num_fewshot", "num_samples") or "_stderr" in metric:
                continue
            error = row.get(metric.replace(" (", "_stderr (") if " (" in metric else metric + "_stderr")
            shots = "" if row["num_fewshot"] is None else str(row["num_fewshot"])
            rows.append((task, shots, metric, f"{value:.4f}", "" if error is None else f"{error:.4f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
