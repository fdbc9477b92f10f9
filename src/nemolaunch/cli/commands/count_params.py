"""`nemolaunch count-params`: count a model's parameters, by component and per rank."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from nemolaunch import arithmetic
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.layout_flags import add_model_flags, model_and_vocabulary
from nemolaunch.cli.views.estimate import row
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.units import count

FIELDS = (
    "model_name", "hf_model_id",
    "tensor_model_parallel_size", "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size",
    "expert_model_parallel_size", "expert_tensor_parallel_size",
)  # fmt: skip
COMPONENTS = ("attention", "mixer", "mlp", "router", "experts", "shared_experts", "norms", "other")


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch count-params`."""
    parser = Parser(
        prog="nemolaunch count-params",
        example="nemolaunch count-params -M llama3_8b -TP 2 -PP 4",
        description="Count a model's parameters: total, without the input embedding, active, and per rank.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_flags(parser, FIELDS)
    return parser


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print the counts."""
    given = vars(parser().parse_args(argv))
    as_json = given.pop("json")
    counts = counted(given)
    if as_json:
        print(json.dumps(counts, indent=1))
    else:
        print("\n".join(_lines(counts)))
    return 0


def counted(given: dict[str, Any]) -> dict[str, Any]:
    """Return all counts of the model that parsed flags name."""
    from nemolaunch.estimate.layout import Layout
    from nemolaunch.estimate.tensors import local_parameters

    job, model, vocab_size = model_and_vocabulary(given)
    p = job.parallelism
    tensor = max(1, p.tensor_model_parallel_size)
    rows, origin = arithmetic.model_vocab_rows(model, vocab_size, tensor)
    counts = arithmetic.parameters(model.architecture, rows)
    stages = max(1, p.pipeline_model_parallel_size)
    layout = Layout(
        world_size=tensor * stages * max(1, p.expert_model_parallel_size),
        tensor=tensor,
        pipeline=stages,
        virtual=max(1, p.virtual_pipeline_model_parallel_size or 1),
        expert=max(1, p.expert_model_parallel_size),
        expert_tensor=max(1, p.expert_tensor_parallel_size or tensor),
    )
    return {
        "model": model.name,
        "vocab_rows": rows,
        "vocabulary": origin,
        "total": counts.total,
        "without_embedding": counts.non_embedding,
        "active": counts.active,
        "active_without_embedding": counts.active_non_embedding,
        "components": {
            "embedding": counts.embedding,
            "position_embedding": counts.position_embedding,
            "layer_embedding": counts.layer_embedding,
            "layer_projection": counts.layer_projection,
            **{name: counts.component(name) for name in COMPONENTS},
            "final_norm": counts.final_norm,
            "head": counts.head,
            "output_layer": counts.output_layer,
        },
        "per_rank": [local_parameters(model.architecture, layout, stage, rows) for stage in range(stages)],
    }


def _lines(counts: dict[str, Any]) -> list[str]:
    lines = [
        row("model", f"{counts['model']}; {counts['vocab_rows']:,} embedding rows ({counts['vocabulary']})"),
        row("total", _number(counts["total"])),
        row("", f"{_number(counts['without_embedding'])} without the input embedding"),
    ]
    if counts["active"] != counts["total"]:
        lines += [
            row("active", f"{_number(counts['active'])}, used by each token"),
            row("", f"{_number(counts['active_without_embedding'])} without the input embedding"),
        ]
    lines += [
        row("" if number else "of which", f"{size:>16,}  {name.replace('_', ' ')}")
        for number, (name, size) in enumerate((n, s) for n, s in counts["components"].items() if s)
    ]
    ranks = counts["per_rank"]
    if len(ranks) > 1:
        return lines + [row("" if s else "per rank", f"{n:>16,}  stage {s + 1}") for s, n in enumerate(ranks)]
    return [*lines, row("per rank", f"{ranks[0]:>16,}")]


def _number(value: int) -> str:
    return f"{value:,} ({count(value)})"


if __name__ == "__main__":
    sys.exit(main())
