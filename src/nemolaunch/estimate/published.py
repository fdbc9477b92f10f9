"""Published training speeds and the share of a GPU's peak they reach: the default for time estimates."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemolaunch import arithmetic, catalogue
from nemolaunch.catalogue import Architecture, Gpu
from nemolaunch.estimate.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A published run: a model in a layout on GPUs, and its speed.

    Attributes:
        tokens_per_s: tokens per second and GPU.
        tabulated: the result of `share` as recorded in the table.
    """

    model: str
    gpu: str
    precision: str
    layout: Layout
    tokens_per_s: float
    tabulated: tuple[bool, int, float]
    source: str


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """Model FLOPs utilization: the share of a GPU's dense peak that the model's own FLOPs reach.

    Attributes:
        mfu: by the convention that counts full attention, including the pipeline bubble.
        error: relative error of a derived time, in either direction: the spread of the measurements.
        source: the measurements it is derived from.
    """

    mfu: float
    error: float
    source: str


@functools.cache
def _data() -> dict[str, Any]:
    file = Path(__file__).with_name("published.json")
    return dict(json.loads(file.read_text(encoding="utf-8")))


@functools.cache
def measurements() -> tuple[Measurement, ...]:
    """Return all published runs whose layout is known."""
    data = _data()
    out = []
    for values in data["rows"]:
        row = dict(zip(data["columns"], values, strict=True))
        layout = Layout(
            world_size=row["num_gpus"],
            tensor=row["tensor"],
            pipeline=row["pipeline"],
            context=row["context"],
            virtual=row["virtual"],
            expert=row["expert"],
            expert_tensor=1 if row["expert"] > 1 else row["tensor"],
            sequence_parallel=row["tensor"] > 1,
            micro_batch_size=row["micro_batch_size"],
            global_batch_size=row["global_batch_size"],
            seq_length=row["seq_length"],
            fp8=row["precision"] == "fp8",
            fsdp_shard=row["fsdp"] or None,
            gpus_per_node=min(8, row["num_gpus"]),
        )
        out.append(
            Measurement(
                model=row["model"],
                gpu=row["gpu"],
                precision=row["precision"],
                layout=layout,
                tokens_per_s=float(row["tokens_per_s"]),
                tabulated=(row["experts"], row["active_parameters"], row["mfu"]),
                source=data["sources"][row["source"]],
            )
        )
    return tuple(out)


def peak(gpu: Gpu, precision: str) -> float:
    """Return the dense peak for a number format in FLOP/s; bf16's (or fp16's) if the GPU does not support it."""
    ordinary = gpu.peak_bf16 or gpu.peak_fp16
    if precision == "fp8":
        return gpu.peak_fp8 or ordinary
    if precision == "fp32":
        return gpu.peak_tf32 or ordinary / 2
    return ordinary


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A published share of a GPU's peak."""

    gpu: str
    active: float
    mfu: float
    source: str


@functools.cache
def _known(precision: str, moe: bool) -> tuple[_Known, ...]:
    """Return the published shares for a number format, of models with or without experts."""
    data, known = _data(), []
    for columns, rows in ((data["columns"], data["rows"]), (data["share_columns"], data["shares"])):
        for values in rows:
            row = dict(zip(columns, values, strict=True))
            if row["precision"] == precision and row["experts"] == moe:
                source = data["sources"][row["source"]]
                known.append(
                    _Known(gpu=row["gpu"], active=row["active_parameters"], mfu=row["mfu"], source=source)
                )
    return tuple(known)


def share(m: Measurement) -> tuple[bool, int, float]:
    """Compute whether the model has experts, its active weights, and the share of the peak, as in the table.

    The table records them because looking up every model would take longer than the rest of a plan.
    """
    model = catalogue.model(m.model)
    rows, _ = arithmetic.model_vocab_rows(model, None, m.layout.tensor)
    flops = arithmetic.flops_per_token(model.architecture, rows, m.layout.seq_length).full
    active = arithmetic.parameters(model.architecture, rows).active_non_embedding
    mfu = m.tokens_per_s * flops / peak(catalogue.gpu(m.gpu), m.precision)
    return model.architecture.num_moe_experts is not None, active, round(mfu, 4)


def default_utilization(architecture: Architecture, gpu: Gpu, precision: str, active: int) -> Utilization:
    """Return what published runs of similar models reach: on this GPU, else its generation, else any GPU.

    The geometric mean of runs with the same number format, with or without experts like the model, weighted by
    similarity in size: a factor of e in active weights has weight 1/e.
    """
    known = _known("fp8" if precision == "fp8" else "bf16", architecture.num_moe_experts is not None)
    own = [k for k in known if k.gpu == gpu.name]
    alike = [k for k in known if catalogue.gpu(k.gpu).compute_capability == gpu.compute_capability]
    fitting = own or alike or list(known)
    weights = [math.exp(-abs(math.log(k.active / max(1, active)))) for k in fitting]
    logs = [math.log(k.mfu) for k in fitting]
    mean = _weighted(logs, weights)
    spread = math.sqrt(_weighted([(value - mean) ** 2 for value in logs], weights))
    nearest = fitting[weights.index(max(weights))]
    source = nearest.source if own else f"{nearest.source} ({nearest.gpu})"
    if len(fitting) > 1:
        source = f"{len(fitting)} published runs; nearest: {source}"
    error = max(0.2 if own else 0.4, math.exp(spread) - 1)
    return Utilization(mfu=math.exp(mean), error=error, source=source)


def _weighted(values: list[float], weights: list[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
