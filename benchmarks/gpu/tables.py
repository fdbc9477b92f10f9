"""Generate docs/performance.md: `python benchmarks/gpu/tables.py [--results DIR] [--check]`.

The figures of a CPU come from the table of benchmarks/README.md, those of a GPU from results. Uses the newest result
of each step, and never results of tiny shapes or from a CPU.
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
BENCHMARKS = HERE.parent / "README.md"
THIS_SCRIPT = "| `gpu/run.py`"  # its row only points to the page
Record = dict[str, Any]

INTRODUCTION = """\
# Performance

Each figure comes from a script in [benchmarks/](../benchmarks/README.md), next to a peer in the same run.
"""
ON_GPU = """\
## On a GPU

By [benchmarks/gpu](../benchmarks/gpu/README.md), which describes the measurements and how to repeat them on a machine
with one GPU. FLOPs are reported by both conventions: counting full attention (as NeMo does up to 25.07), and counting
causal attention (as Megatron-Bridge does). MFU is relative to the GPU's dense bf16 peak, or to its fp8 peak for fp8.
"""
# step → (heading, what it measures)
STEPS: dict[str, tuple[str, str]] = {
    "smoke": (
        "Smoke test",
        "`pretrain_llm.py` with Llama 3.2 1B in bf16 on one GPU: 20 steps on real text, stopped and resumed in "
        "between, exported to Hugging Face, and continued with plain `transformers`.",
    ),
    "throughput-1b": (
        "Llama 3.2 1B",
        "Tokens per second, TFLOP/s, MFU and peak memory at sequence length 8192 in bf16 and fp8, compared with "
        "`transformers` (with `torch.compile` and SDPA) and torchtitan on the same GPU in the same run.",
    ),
    "throughput-8b": (
        "Llama 3.1 8B",
        "The same measurements with as many of the 32 layers as fit together with their optimizer state; the whole "
        "model is extrapolated from two numbers of layers, assuming that every layer costs the same.",
    ),
    "layer-cost": (
        "Overhead of nemolaunch",
        "Seconds per step of a nemolaunch job and of the same NeMo recipe started by hand, measured alternately. "
        "Target: below 1 %.",
    ),
    "estimator": (
        "Memory estimate",
        "Predicted and measured peak memory of 16 configurations: recompute, micro batch, offloading, fp8, optimizer. "
        "One half is used for calibration, the other for testing. Target: within 5 %.",
    ),
    "cpu-gpu": (
        "CPU and GPU",
        "The same fp32 job as a CPU rehearsal and on the GPU: losses step by step, starting from the same checkpoint, "
        "moved from the CPU to the GPU and back.",
    ),
    "tuning": (
        "Tuning",
        "Micro batch, fp8, CUDA graphs, overlap of communication and attention backend, each compared with the "
        "unchanged recipe, and all that helped combined. The best combination becomes a `--preset`.",
    ),
}


def newest(results: Path) -> dict[str, Record]:
    """Return the newest eligible result of each step."""
    found: dict[str, Record] = {}
    for file in results.glob("*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.get("tiny") or record.get("device") != "gpu":
            continue
        if record["step"] not in found or found[record["step"]]["date"] < record["date"]:
            found[record["step"]] = record
    return found


def page(records: dict[str, Record]) -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "## On a CPU\n", *on_cpu(), ""]
    if not records:
        return "\n".join([*parts, "Nothing has been measured on a GPU.", ""])
    parts.append(ON_GPU)
    for step, (heading, what) in STEPS.items():
        if step in records:
            parts.append(f"### {heading}\n\n{what}\n")
            parts.append(section(records[step]))
    return "\n".join(parts)


def on_cpu() -> list[str]:
    """Return the table of benchmarks/README.md, with links from docs/, and the line below it about the machine."""
    lines = BENCHMARKS.read_text(encoding="utf-8").replace("](../docs/", "](").splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith(THIS_SCRIPT)]
    (about,) = (line for line in lines if line.startswith("Measured in "))
    return [*rows, "", about]


def section(record: Record) -> str:
    """Return hardware, tables and failures of one result."""
    good = [row for row in record["rows"] if "error" not in row]
    lines = [about(record), ""]
    lines += TABLES[record["step"]](good, record.get("summary") or {})
    failed = [f"{row['name']} ({_one_line(row['error'])})" for row in record["rows"] if "error" in row]
    if failed:
        lines += ["", f"Failed: {'; '.join(failed)}."]
    return "\n".join(lines) + "\n"


def about(record: Record) -> str:
    """Return date, GPU and versions in one line."""
    versions = record["versions"]
    named = [f"{n} {versions[n]}" for n in ("torch", "nemo_toolkit", "megatron-core") if versions.get(n)]
    engine = versions.get("transformer-engine")
    named.append(f"Transformer Engine {engine}" if engine else "without Transformer Engine")
    return (
        f"{record['date'][:10]}, {', '.join(record['gpus'])}, driver {record['driver']}; {', '.join(named)}."
    )


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a Markdown table with all columns but the first right-aligned."""
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
            lines += ["", f"{name}: {value:.2f} times the tokens per second."]
    return lines


def _flops(row: Record) -> list[str]:
    cells = [f"{row[n]:.0f}" if n in row else "" for n in ("tflops_per_gpu", "tflops_per_gpu_causal")]
    return cells + [f"{row[n]:.1%}" if n in row else "" for n in ("mfu", "mfu_causal")]


def _smoke(rows: list[Record], summary: Record) -> list[str]:
    lines = [f"Worked: {', '.join(summary.get('worked', [])) or 'nothing'}."]
    for row in rows:
        if "largest_loss_difference" in row:
            lines.append(
                f"The losses of the {row['repeated_steps']} steps that ran both before and after the resume differ by "
                f"at most {row['largest_loss_difference']:.2g}."
            )
    return lines


def _cost(rows: list[Record], summary: Record) -> list[str]:
    lines = table(("", "seconds per step"), ([row["name"], f"{row['step_time_s']:.4f}"] for row in rows))
    if "cost" in summary:
        lines += ["", f"A nemolaunch step takes {summary['cost']:+.2%} longer."]
    return lines


def _memory(rows: list[Record], summary: Record) -> list[str]:
    lines = table(("", "predicted", "measured", "error"), (
        [row["name"], _gib(row["predicted_bytes"]), _gib(row["measured_bytes"]), f"{row['relative_error']:+.1%}"]
        for row in rows
    ))  # fmt: skip
    for name, what in (
        ("errors", "uncalibrated"),
        ("errors_of_the_rest", "on the half it was not fitted to"),
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
    """Write the page, or with `--check` return 1 if it is not up to date."""
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
