"""`nemolaunch eval watch`: evaluate each checkpoint of a run as it appears."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nemolaunch.cli.commands.eval_lm import add_task_flags
from nemolaunch.cli.commands.eval_ppl import add_text_flags, note
from nemolaunch.cli.parsing.trust_flag import add_trust_flag
from nemolaunch.errors import UsageError
from nemolaunch.system.quantities import counted

EXAMPLE = "nemolaunch eval watch runs/pretraining --data valid.jsonl --prompt 'It was'"


def add(kinds: Any) -> None:
    """Add the sub-command."""
    p = kinds.add_parser(
        "watch",
        help="evaluate each checkpoint of a run as it appears",
        description="Evaluate each new checkpoint of a run until the run has finished. The results are saved in the "
        "run folder and appear in its report.",
        example=EXAMPLE,
    )
    p.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    add_text_flags(p, required=False)
    add_task_flags(p, required=False)
    p.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="also generate a continuation of this prompt; repeatable",
    )
    p.add_argument(
        "--max-new-tokens", type=int, default=50, metavar="N", help="maximum number of tokens to generate"
    )
    add_trust_flag(p)
    p.add_argument("--json", action="store_true", help="print one JSON object per checkpoint")
    p.add_argument("--once", action="store_true", help="evaluate the existing checkpoints, then exit")
    p.add_argument(
        "--poll", type=float, default=30.0, metavar="S", help="seconds between checks for a new checkpoint"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch until the run has finished. Return the exit code."""
    from nemolaunch.evaluation.watch import watch
    from nemolaunch.observe.status import run_of
    from nemolaunch.planning import Plan

    folder = run_of(args.run_folder)
    masked = Plan.load(folder.plan).job.objective.objective == "mlm"
    request = _masked_request(args) if masked else _request(args)
    count = 0

    def is_over() -> bool:
        return args.once or folder.finished.exists()

    for row in watch(folder, lambda step: request, is_over=is_over, poll_s=args.poll, say=note):
        print(json.dumps(row, ensure_ascii=False) if args.json else line(row), flush=True)
        count += 1
    if not count:
        note(f"{folder.root} has no new checkpoint to evaluate")
    return 0


def _request(args: argparse.Namespace) -> Any:
    from nemolaunch.evaluation.watch import EvaluationRequest

    if not (args.data or args.tasks or args.prompt):
        raise UsageError("nothing to evaluate: use --data, --tasks or --prompt")
    ppl = _words(args, "data", "text_key", "split", "limit", "context_length", "stride", "batch_size")
    lm = _words(args, "tasks", "include_path", "num_fewshot", "limit", "batch_size")
    if args.apply_chat_template:
        lm.append("--apply-chat-template")
    generate = [
        f"--max-new-tokens={args.max_new_tokens}",
        *(f"--prompt={prompt}" for prompt in args.prompt or ()),
    ]
    return EvaluationRequest(
        ppl=[*ppl, *_trust(args)] if args.data else None,
        lm=[*lm, *_trust(args)] if args.tasks else None,
        generate=[*generate, *_trust(args)] if args.prompt else None,
        trust_remote_code=args.trust_remote_code,
    )


def _trust(args: argparse.Namespace) -> list[str]:
    return ["--trust-remote-code"] if args.trust_remote_code else []


def _masked_request(args: argparse.Namespace) -> Any:
    """Return the request for a masked language model, which supports masked-token evaluation only."""
    from nemolaunch.evaluation.watch import EvaluationRequest

    other = [f"--{name}" for name in ("tasks", "prompt", "stride") if getattr(args, name)]
    if other or not args.data:
        reason = f"{' and '.join(other)} require a causal model; " if other else ""
        raise UsageError(f"this run trains a masked language model: {reason}use --data alone")
    words = _words(args, "data", "text_key", "split", "limit", "context_length", "batch_size")
    return EvaluationRequest(mlm=[*words, *_trust(args)], trust_remote_code=args.trust_remote_code)


def _words(args: argparse.Namespace, *names: str) -> list[str]:
    """Return the given flags as arguments for another command."""
    given = {name: getattr(args, name) for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


def line(row: dict[str, Any]) -> str:
    """Format the results of one checkpoint."""
    parts = [f"step {row['step']}:"]
    if "eval_perplexity" in row:
        parts.append(
            f"perplexity {row['eval_perplexity']:.4f}, bits per byte {row['eval_bits_per_byte']:.4f}"
        )
    if "eval_masked_accuracy" in row:
        accuracy, loss = row["eval_masked_accuracy"], row["eval_masked_loss"]
        parts.append(f"masked accuracy {accuracy:.2%}, masked loss {loss:.4f}")
    for task, figures in row.get("tasks", {}).items():
        metric = next((m for m in ("acc_norm", "acc", "exact_match", *figures) if m in figures), None)
        if metric:
            parts.append(f"{task} {metric} {figures[metric]:.4f}")
    if "samples" in row:
        parts.append(counted(len(row["samples"]), "sample"))
    return " ".join(parts[:1]) + " " + ", ".join(parts[1:])
