"""`nemolaunch suggest`: rank parallel layouts that fit by speed, and explain what makes the first one faster."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from nemolaunch import arithmetic, catalogue
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.layout_flags import add_model_flags, model_and_vocabulary
from nemolaunch.cli.views.estimate import row
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.units import gib, step_duration
from nemolaunch.errors import NemolaunchError, UsageError
from nemolaunch.estimate.layout import Layout, layout_of_job
from nemolaunch.estimate.performance import model_share
from nemolaunch.estimate.suggest import Suggestion, layouts, reasons, suggestions

FIELDS = (
    "model_name", "hf_model_id", "num_nodes", "num_gpus", "gpu", "seq_length", "global_batch_size",
    "precision", "fp8",
)  # fmt: skip
GPUS_PER_NODE = 8
SIGNIFICANT_SHARE = 0.02  # smaller differences are within the noise of the estimate
COLUMNS = (
    "TP", "PP", "VPP", "CP", "EP", "ETP", "DP", "MBS", "recompute", "step", "tokens/s/GPU", "MFU", "memory",
)  # fmt: skip
LABELS = {
    "compute": "computation of its layers",
    "recompute": "recomputation",
    "tensor": "tensor parallel communication",
    "context": "context parallel communication",
    "expert": "expert parallel communication",
    "bubble": "pipeline bubble",
    "data": "communication of gradients and weights",
    "optimizer": "the optimizer",
}


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch suggest`."""
    parser = Parser(
        prog="nemolaunch suggest",
        example="nemolaunch suggest -M llama3_70b -N 8 -G 8 --gpu h100",
        description="Rank the parallel layouts that fit by estimated step time, each with its best micro batch "
        "size, virtual pipeline size and recomputation. Times are rough; their order is what counts.",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="number of layouts to show (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_flags(parser, FIELDS)
    return parser


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print the ranking."""
    given = vars(parser().parse_args(argv))
    as_json, top = given.pop("json"), given.pop("top")
    if top < 1:
        raise UsageError(f"--top {top} is out of range: it must be at least 1")
    model, base, gpu, rows = _request(given)
    found = suggestions(model.architecture, base, gpu, rows)
    if not found and not any(layouts(model.architecture, base, rows)):
        raise UsageError(
            f"no parallel sizes of {model.name} divide {base.world_size} GPUs, a sequence of {base.seq_length:,} "
            f"tokens and a global batch of {base.global_batch_size} at the same time: change -N, -G or -gbs"
        )
    if not found:
        raise NemolaunchError(
            f"no layout of {model.name} fits {base.world_size} x {gpu.name} with a global batch of "
            f"{base.global_batch_size} and sequences of {base.seq_length:,} tokens: use more or larger GPUs "
            "(-N, -G, --gpu)"
        )
    if as_json:
        print(json.dumps([_values(model, s, gpu, rows) for s in found[:top]], indent=1))
        return 0
    print(
        row(
            "model",
            f"{model.name}, sequence length {base.seq_length:,}, global batch {base.global_batch_size}",
        )
    )
    print(row("on", f"{base.world_size} x {gpu.name}, {'fp8' if base.fp8 else base.precision}"))
    print(row("considered", f"{len(found)} combinations of parallel sizes that fit"))
    print()
    print("\n".join(_table(model, found[:top], gpu, rows)))
    if any(s.tight for s in found[:top]):
        print("~ only fits if the memory estimate is not much too low")
    if len(found) > 1:
        print(f"\n1 before 2: {why(found[0], found[1])}")
    print(f"\n{flags(found[0].layout)}")
    return 0


def _request(given: dict[str, Any]) -> tuple[catalogue.ModelSpec, Layout, catalogue.Gpu, int]:
    job, model, vocab_size = model_and_vocabulary(given)
    nodes, each = max(1, job.launch.num_nodes), job.launch.num_gpus or GPUS_PER_NODE
    base = layout_of_job(job, model, nodes * each).with_values(gpus_per_node=each)
    rows, _ = arithmetic.model_vocab_rows(model, vocab_size, min(8, each))
    return model, base, catalogue.gpu(job.launch.gpu or "h100"), rows


def flags(layout: Layout) -> str:
    """Return the layout as flags of `nemolaunch pretrain`."""
    words = [f"-TP {layout.tensor}", f"-PP {layout.pipeline}"]
    if layout.virtual > 1:
        words.append(f"-VPP {layout.virtual}")
    words.append(f"-CP {layout.context}")
    if layout.sequence_parallel:
        words.append("-SP")
    if layout.expert > 1:
        words.append(f"-EP {layout.expert} -ETP {layout.expert_tensor}")
    words.append(f"-mbs {layout.micro_batch_size} -gbs {layout.global_batch_size}")
    if layout.recompute_granularity:
        words.append("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1")
    return " ".join(words)


def why(better: Suggestion, worse: Suggestion) -> str:
    """Explain how much faster one layout is than the other, and what makes the difference."""
    share = worse.time.total / better.time.total - 1
    lead = f"{share:.1%} faster" + (", within the estimate's error" if share < SIGNIFICANT_SHARE else "")
    saved = reasons(better, worse)
    gains = [f"{step_duration(s)} less for {LABELS[name]}" for name, s in saved if s > 0][:3]
    losses = [f"{step_duration(-s)} more for {LABELS[name]}" for name, s in saved if s < 0][:2]
    return lead + ": " + ", ".join(gains) + (", but " + ", ".join(losses) if losses else "")


def _table(model: catalogue.ModelSpec, found: list[Suggestion], gpu: catalogue.Gpu, rows: int) -> list[str]:
    dense = not model.architecture.num_moe_experts
    head = ["", *(name for name in COLUMNS if not (dense and name in ("EP", "ETP")))]
    lines = [head]
    for number, s in enumerate(found, 1):
        values = _values(model, s, gpu, rows)
        cells = {
            "": str(number),
            "step": step_duration(values["step_s"]),
            "tokens/s/GPU": f"{values['tokens_per_s_per_gpu']:,.0f}",
            "MFU": f"{values['mfu']:.0%}",
            "memory": ("~" if s.tight else "") + gib(s.memory.total),
            **{name: str(values[name]) for name in COLUMNS if name in values},
        }
        lines.append([cells[name] for name in head])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]


def _values(model: catalogue.ModelSpec, s: Suggestion, gpu: catalogue.Gpu, rows: int) -> dict[str, Any]:
    p, seconds = s.layout, s.time.total
    return {
        "TP": p.tensor, "PP": p.pipeline, "VPP": p.virtual, "CP": p.context, "EP": p.expert,
        "ETP": p.expert_tensor, "DP": p.data, "MBS": p.micro_batch_size,
        "recompute": p.recompute_granularity or "none",
        "step_s": seconds,
        "step_parts_s": dataclasses.asdict(s.time),
        "tokens_per_s_per_gpu": p.global_batch_size * p.seq_length / seconds / p.world_size,
        "mfu": model_share(model.architecture, p, gpu, rows, seconds),
        "memory_bytes": s.memory.total,
        "tight": s.tight,
        "flags": flags(p),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
