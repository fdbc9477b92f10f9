"""`nemolaunch estimate-mem`: estimate the memory of the fullest GPU, without data, a tokenizer or a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from nemolaunch import catalogue
from nemolaunch.cli.parsing.arguments import Parser
from nemolaunch.cli.parsing.layout_flags import LAYOUT_FIELDS, add_model_flags, model_and_vocabulary
from nemolaunch.cli.views.estimate import memory_lines, row
from nemolaunch.cli.views.render import guarded
from nemolaunch.cli.views.units import count, gib
from nemolaunch.errors import UsageError
from nemolaunch.estimate import Estimate, Layout, estimate_layout
from nemolaunch.estimate.layout import layout_of_job

GPUS_PER_NODE = 8


def parser() -> argparse.ArgumentParser:
    """Create the parser of `nemolaunch estimate-mem`."""
    parser = Parser(
        prog="nemolaunch estimate-mem",
        example="nemolaunch estimate-mem -M llama3_8b -N 1 -G 8 -TP 2 --gpu h100",
        description="Estimate the memory of the fullest GPU. Weights, gradients and optimizer state are "
        "exact; activations and the rest have a stated error. Exit code 1 if the job does not fit.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--stages", action="store_true", help="show the memory of each pipeline stage")
    parser.add_argument(
        "--data-parallel-shard-degree",
        type=int,
        metavar="N",
        help="use fully sharded data parallelism (FSDP) over N ranks",
    )
    parser.add_argument(
        "--data-parallel-replicate-degree",
        type=int,
        metavar="N",
        help="number of copies of the sharded model (HSDP)",
    )
    add_model_flags(parser, LAYOUT_FIELDS)
    return parser


@guarded
def main(argv: list[str] | None = None) -> int:
    """Print the estimate. Return exit code 1 if the job does not fit."""
    given = vars(parser().parse_args(argv))
    as_json, stages = given.pop("json"), given.pop("stages")
    shard = given.pop("data_parallel_shard_degree")
    replicate = given.pop("data_parallel_replicate_degree")
    estimated, layout, model = estimated_memory(given, shard, replicate)
    per_stage = _stages(estimated, layout, model) if stages else []
    if as_json:
        content = {
            "gpu": estimated.gpu.name,
            "gpu_memory": estimated.gpu.memory_bytes,
            "fits": estimated.fits,
            **_memory(estimated.memory),
            "stages": [_memory(m) for m in per_stage],
        }
        print(json.dumps(content, indent=1))
    else:
        print("\n".join(_lines(estimated, layout)))
        for m in per_stage:
            print(row("" if m.stage else "stages", f"{m.stage + 1:>3}  {gib(m.total)}"))
    return 1 if estimated.fits is False else 0


def estimated_memory(
    given: dict[str, Any], shard: int | None, replicate: int | None
) -> tuple[Estimate, Layout, catalogue.ModelSpec]:
    """Return the estimate for parsed flags, its layout and model.

    Raises:
        UsageError: the ranks do not divide, or there is no such model or GPU.
    """
    job, model, vocab_size = model_and_vocabulary(dict(given))
    layout = layout_of_job(job, model, world_size(job, shard, replicate))
    if shard is not None or replicate is not None:
        layout = fully_sharded(layout, shard, replicate)
    gpu = catalogue.gpu(job.launch.gpu or "h100")
    origin = "given" if job.launch.gpu else "assumed; --gpu NAME selects another"
    return estimate_layout(model, layout, gpu, vocab_size=vocab_size, gpu_origin=origin), layout, model


def world_size(job: Any, shard: int | None, replicate: int | None) -> int:
    """Return the number of ranks: nodes times processes, else what the layout needs, at least one node."""
    p, nodes = job.parallelism, max(1, job.launch.num_nodes)
    unit = p.tensor_model_parallel_size * p.pipeline_model_parallel_size * p.context_parallel_size
    if unit < 1:
        raise UsageError("parallel sizes must be at least 1; change -TP, -PP or -CP")
    if job.launch.num_gpus:
        ranks = nodes * job.launch.num_gpus
    elif shard is not None or replicate is not None:
        ranks = unit * (shard or 1) * (replicate or 1)
    else:
        ranks = max(nodes * GPUS_PER_NODE, unit)
    if ranks % unit:
        raise UsageError(
            f"{ranks} ranks are not a multiple of TP·PP·CP = {unit}; change -N or -G, or the parallel sizes"
        )
    return ranks


def fully_sharded(layout: Layout, shard: int | None, replicate: int | None) -> Layout:
    """Return the layout with fully sharded data parallelism; a missing degree follows from the other.

    Raises:
        UsageError: the product of the degrees is not the number of data parallel ranks.
    """
    ranks = layout.data * layout.context
    shard = shard if shard is not None else ranks // max(1, replicate or 1)
    replicate = replicate if replicate is not None else ranks // max(1, shard)
    if shard < 1 or replicate < 1 or shard * replicate != ranks:
        raise UsageError(
            f"--data-parallel-shard-degree {shard} times --data-parallel-replicate-degree {replicate} is not "
            f"the data parallel size {ranks} (nodes x GPUs / TP / PP); use only one of them, a divisor of {ranks}"
        )
    return layout.with_values(fsdp_shard=shard, fsdp_replicate=replicate)


def _stages(estimated: Estimate, layout: Layout, model: catalogue.ModelSpec) -> list[Any]:
    from nemolaunch.estimate.memory import stage_memory

    return [
        stage_memory(model.architecture, layout, stage, estimated.vocab_rows)
        for stage in range(layout.pipeline)
    ]


def _memory(m: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(m), "total": m.total, "error": m.error}


def _lines(e: Estimate, layout: Layout) -> list[str]:
    sharded = f", fully sharded over {layout.fsdp_shard}" if layout.fsdp_shard else ""
    sizes = {"TP": layout.tensor, "PP": layout.pipeline, "CP": layout.context, "EP": layout.expert}
    shown = " ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
    return [
        row("model", f"{count(e.parameters)} parameters; vocabulary: {e.vocabulary}"),
        row(
            "layout",
            f"{layout.world_size} GPUs: {shown + ', ' if shown else ''}data parallel {layout.data}{sharded}",
        ),
        row("gpu", f"{e.gpu.name} ({e.gpu_origin})"),
        *memory_lines(e),
    ]


if __name__ == "__main__":
    sys.exit(main())
