"""`nemolaunch eval watch`: evaluates each checkpoint of a run as it appears."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nemolaunch.cli.commands.eval_lm import add_task_flags
from nemolaunch.cli.commands.eval_ppl import add_text_flags, tell
from nemolaunch.errors import UsageError

EXAMPLE = "nemolaunch eval watch runs/pretraining --data valid.jsonl --prompt 'It was'"


def add(kinds: Any) -> None:
    """Add the sub-command."""
    p = kinds.add_parser(
        "watch",
        help="evaluate each checkpoint of a run as it appears",
        description="Evaluate each new checkpoint of a run until the run has finished. The figures are added "
        "to the run's folder, and its report shows them.",
        example=EXAMPLE,
    )
    p.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    add_text_flags(p, required=False)
    add_task_flags(p, required=False)
    p.add_argument(
        "--prompt", action="append", metavar="TEXT", help="also let it continue this; several times"
    )
    p.add_argument("--max-new-tokens", type=int, default=50, metavar="N", help="the most to write")
    p.add_argument("--json", action="store_true", help="print one JSON object a checkpoint")
    p.add_argument("--once", action="store_true", help="evaluate what is there now, then end")
    p.add_argument(
        "--poll", type=float, default=30.0, metavar="S", help="seconds between looks for a new one"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch until the run has finished. Returns the exit code."""
    from nemolaunch.evaluation.watch import watch
    from nemolaunch.observe.status import run_of
    from nemolaunch.planning import Plan

    folder = run_of(args.run_folder)
    masked = Plan.load(folder.plan).job.objective.objective == "mlm"
    request = _masked_request(args) if masked else _request(args)
    count = 0
    for row in watch(folder, request, once=args.once, poll_s=args.poll, say=tell):
        print(json.dumps(row, ensure_ascii=False) if args.json else line(row), flush=True)
        count += 1
    if not count:
        tell(f"{folder.root} has no checkpoint that is not evaluated yet")
    return 0


def _request(args: argparse.Namespace) -> Any:
    from nemolaunch.evaluation.watch import EvaluationRequest

    if not (args.data or args.tasks or args.prompt):
        raise UsageError("nothing to evaluate: give --data, --tasks or --prompt")
    ppl = _words(args, "data", "text_key", "split", "limit", "context_length", "stride", "batch_size")
    lm = _words(args, "tasks", "include_path", "num_fewshot", "limit", "batch_size")
    if args.apply_chat_template:
        lm.append("--apply-chat-template")
    generate = [
        f"--max-new-tokens={args.max_new_tokens}",
        *(f"--prompt={prompt}" for prompt in args.prompt or ()),
    ]
    return EvaluationRequest(
        ppl=ppl if args.data else None,
        lm=lm if args.tasks else None,
        generate=generate if args.prompt else None,
    )


def _masked_request(args: argparse.Namespace) -> Any:
    """Of a run that trains on masked tokens: it can be asked for these only."""
    from nemolaunch.evaluation.watch import EvaluationRequest

    other = [f"--{name}" for name in ("tasks", "prompt", "stride") if getattr(args, name)]
    if other or not args.data:
        what = f"{' and '.join(other)} ask for the next token; " if other else ""
        raise UsageError(f"this run predicts masked tokens: {what}give --data alone")
    words = _words(args, "data", "text_key", "split", "limit", "context_length", "batch_size")
    return EvaluationRequest(mlm=words)


def _words(args: argparse.Namespace, *names: str) -> list[str]:
    """The flags that were given, as words of another command."""
    given = {name: getattr(args, name) for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


def line(row: dict[str, Any]) -> str:
    """One checkpoint's figures."""
    parts = [f"step {row['step']}:"]
    if "eval_perplexity" in row:
        parts.append(
            f"perplexity {row['eval_perplexity']:.4f}, bits per byte {row['eval_bits_per_byte']:.4f}"
        )
    if "eval_masked_accuracy" in row:
        right, loss = row["eval_masked_accuracy"], row["eval_masked_loss"]
        parts.append(f"{right:.2%} of masked tokens right, loss {loss:.4f}")
    for task, figures in row.get("tasks", {}).items():
        metric = next((m for m in ("acc_norm", "acc", "exact_match", *figures) if m in figures), None)
        if metric:
            parts.append(f"{task} {metric} {figures[metric]:.4f}")
    if "samples" in row:
        parts.append(f"{len(row['samples'])} sample(s)")
    return " ".join(parts[:1]) + " " + ", ".join(parts[1:])
