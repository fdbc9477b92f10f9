"""docs/performance.md from results: `python benchmarks/gpu/tables.py [--results DIR] [--check]`.

The newest result of each step counts; results of tiny shapes or of a CPU never do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "performance.md"
Record = dict[str, Any]

INTRODUCTION = """\
# Performance on a GPU

Measured by [benchmarks/gpu](../benchmarks/gpu/README.md), which says how, and repeats it on a machine with one GPU;
this page is made from its results. FLOPs are given by both conventions: with the whole square of the attention
counted (as NeMo up to 25.07 reports), and with the causal half (as Megatron-Bridge does). MFU is against the dense
bf16 peak of the GPU, in fp8 against the fp8 peak.
"""
# step → (heading, what it measures, said while there is no result)
STEPS: dict[str, tuple[str, str]] = {
    "smoke": (
        "Does it work",
        "`pretrain_llm.py` with Llama 3.2 1B in bf16 on one GPU: 20 steps on real text, stopped and resumed on the "
        "way, exported to Hugging Face, continued by plain `transformers`.",
    ),
    "throughput-1b": (
        "Llama 3.2 1B",
        "Tokens a second, TFLOP/s, MFU and peak memory at sequence length 8192, bf16 and fp8, beside `transformers` "
        "with `torch.compile` and SDPA, and torchtitan, on the same card in the same call.",
    ),
    "throughput-8b": (
        "Llama 3.1 8B",
        "The same with as many of its 32 layers as fit with their optimizer; the whole model is extrapolated from two "
        "numbers of layers, each layer taken to cost the same.",
    ),
    "layer-cost": (
        "What nemolaunch costs",
        "Seconds a step of a job of ours, beside the same NeMo recipe started by hand, in turns. Aim: under 1 %.",
    ),
    "estimator": (
        "The memory estimate",
        "Predicted against measured peak memory over 16 configurations: recompute, micro batch, offloading, fp8, "
        "optimizer. One half calibrates, the other tests. Aim: within 5 %.",
    ),
    "cpu-gpu": (
        "CPU and GPU",
        "The same job in fp32 as a rehearsal on the CPU and on the GPU: losses step by step, from one checkpoint moved "
        "to the GPU, and back.",
    ),
    "tuning": (
        "What the recipe leaves on the table",
        "Micro batch, fp8, CUDA graphs, overlap of communication and attention backend, each against the recipe as it "
        "is, and all that helped together. The best becomes a `--preset`.",
    ),
}


def newest(results: Path) -> dict[str, Record]:
    """The newest result of each step that counts."""
    found: dict[str, Record] = {}
    for file in results.glob("*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.get("tiny") or record.get("device") != "gpu":
            continue
        if record["step"] not in found or found[record["step"]]["date"] < record["date"]:
            found[record["step"]] = record
    return found


def page(records: dict[str, Record]) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    if not records:
        parts.append("Nothing has been measured yet. This is what will be:\n")
        parts += [f"- **{heading}.** {what}" for heading, what in STEPS.values()]
        return "\n".join(parts) + "\n"
    for step, (heading, what) in STEPS.items():
        parts.append(f"## {heading}\n\n{what}\n")
        parts.append(section(records[step]) if step in records else "Not measured yet.\n")
    return "\n".join(parts)


def section(record: Record) -> str:
    """Hardware, tables and failures of one result."""
    good = [row for row in record["rows"] if "error" not in row]
    lines = [about(record), ""]
    lines += TABLES[record["step"]](good, record.get("summary") or {})
    failed = [f"{row['name']} ({_one_line(row['error'])})" for row in record["rows"] if "error" in row]
    if failed:
        lines += ["", f"Failed: {'; '.join(failed)}."]
    return "\n".join(lines) + "\n"


def about(record: Record) -> str:
    """Date, GPU and versions in one line."""
    versions = record["versions"]
    named = [f"{n} {versions[n]}" for n in ("torch", "nemo_toolkit", "megatron-core") if versions.get(n)]
    engine = versions.get("transformer-engine")
    named.append(f"Transformer Engine {engine}" if engine else "without Transformer Engine")
    return (
        f"{record['date'][:10]}, {', '.join(record['gpus'])}, driver {record['driver']}; {', '.join(named)}."
    )


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table; all columns but the first to the right."""
    names = list(headings)
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows]


def _speed(rows: list[Record], summary: Record) -> list[str]:
    headings = ("", "layers", "tokens/s", "TFLOP/s", "causal", "MFU", "causal", "peak memory")
    lines = table(headings, (
        [row["name"], str(row.get("layers", "")), f"{row['tokens_per_s_per_gpu']:,.0f}", *_flops(row),
         _gib(row["memory_peak_bytes"])]
        for row in rows
    ))  # fmt: skip
    for name, value in summary.items():
        if name.startswith("extrapolated"):
            rate = f"{value['tokens_per_s_per_gpu']:,.0f} tokens/s"
            lines += ["", f"With all {value['layers']} layers, {name} (not measured): {rate}."]
        else:
            lines += ["", f"{name}: {value:.2f} times the tokens a second."]
    return lines


def _flops(row: Record) -> list[str]:
    cells = [f"{row[n]:.0f}" if n in row else "" for n in ("tflops_per_gpu", "tflops_per_gpu_causal")]
    return cells + [f"{row[n]:.1%}" if n in row else "" for n in ("mfu", "mfu_causal")]


def _smoke(rows: list[Record], summary: Record) -> list[str]:
    lines = [f"Worked: {', '.join(summary.get('worked', [])) or 'nothing'}."]
    for row in rows:
        if "largest_loss_difference" in row:
            lines.append(
                f"The {row['repeated_steps']} steps done twice, before and after the resume, differ by at most "
                f"{row['largest_loss_difference']:.2g} in the loss."
            )
    return lines


def _cost(rows: list[Record], summary: Record) -> list[str]:
    lines = table(("", "seconds a step"), ([row["name"], f"{row['step_time_s']:.4f}"] for row in rows))
    if "cost" in summary:
        lines += ["", f"A step of ours takes {summary['cost']:+.2%} longer."]
    return lines


def _memory(rows: list[Record], summary: Record) -> list[str]:
    lines = table(("", "predicted", "measured", "error"), (
        [row["name"], _gib(row["predicted_bytes"]), _gib(row["measured_bytes"]), f"{row['relative_error']:+.1%}"]
        for row in rows
    ))  # fmt: skip
    for name, what in (
        ("errors", "as it is"),
        ("errors_of_the_rest", "tested on the half it was not fitted to"),
    ):
        if name in summary:
            of = summary[name]
            lines += [
                "",
                f"Error {what}: mean {of['mean']:.1%}, largest {of['largest']:.1%} of {of['count']}.",
            ]
    if "factors" in summary:
        named = ", ".join(f"{name} × {value}" for name, value in summary["factors"].items())
        lines.append(f"Fitted: {named}.")
    return lines


def _curves(rows: list[Record], summary: Record) -> list[str]:
    names = {"there": "the CPU's checkpoint on the GPU", "back": "the GPU's checkpoint on the CPU"}
    return table(("", "steps compared", "largest relative difference", "at the last step"), (
        [names[row["name"]], str(row["compared_steps"]), f"{row['largest_relative_difference']:.1e}",
         f"{row['difference_at_last_step']:.1e}"]
        for row in rows if row["name"] in names
    ))  # fmt: skip


def _gains(rows: list[Record], summary: Record) -> list[str]:
    gains = summary.get("gains", {})
    lines = table(("", "tokens/s", "of the recipe", "peak memory"), (
        [row["name"], f"{row['tokens_per_s_per_gpu']:,.0f}", f"{gains.get(row['name'], 0):.2f}",
         _gib(row["memory_peak_bytes"])]
        for row in rows
    ))  # fmt: skip
    return [*lines, "", f"Best: {summary['best']}."] if "best" in summary else lines


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


TABLES: dict[str, Callable[[list[Record], Record], list[str]]] = {
    "smoke": _smoke,
    "throughput-1b": _speed,
    "throughput-8b": _speed,
    "layer-cost": _cost,
    "estimator": _memory,
    "cpu-gpu": _curves,
    "tuning": _gains,
}


def main() -> int:
    """Returns 1 with `--check` where the page is not what the results make."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--results", type=Path, default=HERE / "results")
    arguments.add_argument("--check", action="store_true", help="write nothing, only compare")
    given = arguments.parse_args()
    text = page(newest(given.results))
    if given.check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
